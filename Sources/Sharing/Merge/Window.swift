internal import GuestMemory
internal import LinuxHost

/// How mappings are replaced while nobody can write the pages, or nobody can see them; and what follows when one of the calls
/// fails. Nothing between the opening and the closing may allocate, log, call KVM or the store.
final class Window {
    let mapping: any GuestMapping
    private let writers: any WriterControl
    private let pages: GuestPages
    private let budget: ProcessBudget
    private let conditions: PassConditions
    private let journal: EngineJournal

    init(
        _ mapping: any GuestMapping, _ writers: any WriterControl, _ pages: GuestPages,
        _ budget: ProcessBudget, _ conditions: PassConditions, _ journal: EngineJournal
    ) {
        (self.mapping, self.writers, self.pages) = (mapping, writers, pages)
        (self.budget, self.conditions, self.journal) = (budget, conditions, journal)
    }

    /// Runs `body` while nobody can write the pages, by the policy's way. It says of each stretch how many pages from its start on
    /// it mapped anew.
    /// - Returns: false when the window could not be opened.
    func protecting(_ stretches: [Range<Int>], _ body: (inout [Int]) -> Void) -> Bool {
        var replaced = [Int](repeating: 0, count: stretches.count)
        guard conditions.policy.window == .userfaultfd else {
            pausing(stops: journal.pausesInWindows) {
                journal.reached(.windowOpen)
                body(&replaced)
            }
            conditions.disturbances.calls += stretches.count
            return true
        }
        let opened: UInt64
        do throws(LinuxError) {
            for stretch in stretches { try mapping.prepareWindow(stretch) }
            opened = monotonicNanoseconds()
            for stretch in stretches { try mapping.protect(stretch) }
        } catch {
            for stretch in stretches { mapping.release(stretch, replaced: false) }
            return false
        }
        journal.reached(.windowOpen)
        body(&replaced)
        for (stretch, count) in zip(stretches, replaced) {
            mapping.release(stretch.prefix(count), replaced: true)
            mapping.release(stretch.dropFirst(count), replaced: false)
        }
        let length = monotonicNanoseconds() - opened
        journal.count { $0.windows.record(length) }
        // Each stretch is protected, and mapped anew or made writable again.
        conditions.disturbances.calls += 2 * stretches.count
        return true
    }

    /// Runs `body` while nobody reads or writes guest memory: all vCPUs and device threads are stopped.
    /// - Parameter stops: only fault injection says no.
    func pausing(stops: Bool = true, _ body: () -> Void) {
        if stops { writers.pauseWriters() }
        let opened = monotonicNanoseconds()
        body()
        let length = monotonicNanoseconds() - opened
        if stops { writers.resumeWriters() }
        conditions.disturbances.calls += 1
        conditions.disturbances.stopped += length
        journal.count { $0.windows.record(length) }
    }

    /// A mapping could not be made. In a window, so nothing is allocated and nothing read.
    func note(_ failure: MappingFailure) {
        journal.count { $0.putOffNoMapping += 1 }
        budget.noteFailure()
        switch failure {
        case .unchanged: break
        case .wentHome(let run, _):
            pages.fallHome(run)
            journal.count { $0.pagesRehomed += run.count }
        case .destroyed: conditions.fatal = failure
        }
    }
}
