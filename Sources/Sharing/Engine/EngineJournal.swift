internal import FrameStore

/// What the parts of an engine report: counters, events, and the steps that a debug build can break. Nothing in here decides
/// what is done.
final class EngineJournal {
    /// Events that are handed over at a time.
    private static let eventLimit = 4096

    private(set) var statistics = SharingStatistics()
    /// Told of events after each pass, if set.
    var trace: (([ShareEvent]) -> Void)?
    private var events: [ShareEvent] = []
    #if DEBUG
        /// What is to go wrong.
        var injection: FaultInjection?
    #endif

    func count(_ body: (inout SharingStatistics) -> Void) { body(&statistics) }

    /// Never inside a window: it may allocate.
    func note(_ kind: ShareEvent.Kind, _ page: Int, _ location: FrameLocation? = nil) {
        if trace == nil { return }
        events.append(ShareEvent(kind: kind, page: page, location: location))
        if events.count >= Self.eventLimit { flush() }
    }

    func flush() {
        if events.isEmpty { return }
        trace?(events)
        events.removeAll(keepingCapacity: true)
    }

    // MARK: faults, in debug builds that were asked for them; else nothing

    func reached(_ step: MergeStep) {
        #if DEBUG
            injection?.reached(step)
        #endif
    }

    /// A pass is over.
    func passed() {
        #if DEBUG
            injection?.passed(statistics.pagesMerged)
        #endif
    }

    /// Whether windows of the kind `pause` stop the guest. They always do, unless a debug build was asked for faults.
    var pausesInWindows: Bool {
        #if DEBUG
            injection?.leavesUnprotected != true
        #else
            true
        #endif
    }
}
