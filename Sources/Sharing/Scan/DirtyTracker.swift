internal import GuestMemory
internal import LinuxHost

/// Step 1 of a pass, and which pages are to be looked at: what KVM's dirty log and the VMM's own bitmap report, which reported
/// pages are cleared (each clear costs the guest a fault at its next write), which stayed clean since.
///
/// ```
///  written --reported--> uncleared --the plan says so: cleared--> watched --clean at the next harvest--> looked at
///                          ^  \ waits, the longer the more often <--reported again--/
/// ```
final class DirtyTracker {
    enum Harvest { case done, notDue, putOff }

    /// Pages that are looked at before the store is asked about them. With more, several guests that see the same contents
    /// at a time all publish them.
    private static let chunkLength = 256
    /// Passes after which pages that could not be mapped are looked at again.
    private static let passesToRetry = 64

    private let mapping: any GuestMapping
    private let log: any DirtyPageLog
    private let vmmWrites: DirtyBitmap
    private let pages: GuestPages
    private let conditions: PassConditions
    private let journal: EngineJournal
    let volatility: Volatility
    private(set) var plan: WatchPlan

    // A word for each block of 64 pages.
    /// Reported by the last harvest, or before and not cleared since.
    private var written: [UInt64]
    /// Of these, those that the last harvest cleared.
    private var cleared: [UInt64]
    private let uncleared: LazyArray<UInt64>
    /// Cleared and not seen written since: to be looked at when still clean at a harvest.
    private let watched: LazyArray<UInt64>
    /// Could not be mapped, for no reason of their own: to be watched again some passes later.
    private let postponed: LazyArray<UInt64>

    /// The log begins with the first harvest: a guest that is left alone pays nothing for it.
    private var isLogging = false
    private var lastHarvest: UInt64 = 0
    private var mustWatchAll = false
    /// Since when the guest has been left alone because it writes much that is new; nil: it is not.
    private(set) var busySince: UInt64?
    /// It was left alone for long enough, though it is as busy still.
    private var wasPatient = false
    private var cursor = 0

    /// - Throws: when there is no address space for the tables.
    init(
        _ mapping: any GuestMapping, _ log: any DirtyPageLog, _ vmmWrites: DirtyBitmap, _ pages: GuestPages,
        _ conditions: PassConditions, _ journal: EngineJournal
    ) throws(LinuxError) {
        (self.mapping, self.log, self.vmmWrites) = (mapping, log, vmmWrites)
        (self.pages, self.conditions, self.journal) = (pages, conditions, journal)
        let blocks = (pages.count + 63) / 64
        volatility = try Volatility(count: pages.count)
        plan = WatchPlan(blocks: blocks)
        written = [UInt64](repeating: 0, count: blocks)
        cleared = written
        uncleared = try LazyArray(count: blocks)
        watched = try LazyArray(count: blocks)
        postponed = try LazyArray(count: blocks)
    }

    var isBusy: Bool { busySince != nil }
    var blocks: Range<Int> { written.indices }
    /// Reported by the last harvest, or before and not cleared since.
    func written(in block: Int) -> UInt64 { written[block] }
    func isWritten(_ page: Int) -> Bool { written[page >> 6] & Self.bit(page) != 0 }
    /// Whether the last harvest cleared the page.
    func isCleared(_ page: Int) -> Bool { cleared[page >> 6] & Self.bit(page) != 0 }
    /// Bytes of bookkeeping, besides ``volatility``.
    var metadataBytes: Int { written.count * (5 * 8 + WatchPlan.bytesPerBlock) }

    private static func bit(_ page: Int) -> UInt64 { 1 << UInt64(page & 63) }

    // MARK: watching

    func isWatched(_ page: Int) -> Bool { watched[page >> 6] & Self.bit(page) != 0 }
    func watch(_ page: Int) { watched[page >> 6] |= Self.bit(page) }
    func unwatch(_ page: Int) { watched[page >> 6] &= ~Self.bit(page) }

    /// The page could not be mapped now, for no reason of its own: it is looked at again some passes later.
    func postpone(_ page: Int) {
        pages.forget(page)
        postponed[page >> 6] |= Self.bit(page)
    }

    func isPostponed(_ page: Int) -> Bool { postponed[page >> 6] & Self.bit(page) != 0 }
    /// It was written, and is not watched for now: it, or its block, is written too often.
    func isLeftAlone(_ page: Int) -> Bool { uncleared[page >> 6] & Self.bit(page) != 0 }

    /// - Parameter pass: its number.
    func watchPostponed(_ pass: Int) {
        guard pass % Self.passesToRetry == 0 else { return }
        for block in 0..<postponed.count where postponed[block] != 0 {
            watched[block] |= postponed[block]
            postponed[block] = 0
        }
    }

    /// Everything is looked at anew after the next harvest.
    func requestAll() { mustWatchAll = true }

    /// Does what was requested. Right after a harvest, since what that reports is watched when it is cleared, and has not
    /// been written in spite of being watched.
    func watchAllIfRequested() {
        guard mustWatchAll else { return }
        mustWatchAll = false
        findMemory(in: 0..<pages.count)
        for page in 0..<pages.count {
            switch pages.kind(page) {
            case .untouched, .zero: break
            case .mapped: watch(page)
            case .home, .unshared: if !isWritten(page) { watch(page) }
            }
        }
    }

    // MARK: the harvest

    /// - Parameter now: monotonic nanoseconds.
    func harvest(_ now: UInt64) throws(LinuxError) -> Harvest {
        guard now - lastHarvest >= conditions.policy.quietTime else { return .notDue }
        if !isLogging {
            guard try beginLog() else { return .putOff }
        } else if now - lastHarvest > 2 * conditions.policy.longestInterval {
            try discardStaleReports()
        }
        try collect(now)
        return .done
    }

    /// Starts the log. What has memory by then counts as written long ago, and is cleared as the plan says; all else is
    /// cleared at once, which costs the guest nothing, so that its first write is reported.
    /// - Returns: false when the kernel has no memory for the log now.
    private func beginLog() throws(LinuxError) -> Bool {
        do throws(LinuxError) { try log.beginLogging() } catch {
            guard error.isForWantOfMemory else { throw error }
            journal.count { $0.putOffNoMemory += 1 }
            return false
        }
        isLogging = true
        for block in blocks { written[block] = 0 }
        vmmWrites.harvest(into: &written)
        var page = 0
        while let run = mapping.firstMemoryAtHome(page..<pages.count) {
            for page in run {
                pages.touch(page)
                uncleared[page >> 6] |= Self.bit(page)
            }
            page = run.upperBound
        }
        for block in blocks { cleared[block] = ~uncleared[block] }
        if pages.count % 64 != 0 { cleared[cleared.count - 1] &= Self.bit(pages.count) - 1 }
        conditions.disturbances.calls += 1
        try log.clearDirtyPages(cleared)
        // What the guest touched between the look and the clear, the audit finds.
        return true
    }

    /// What was written in a long time in which nobody looked says nothing of how busy the guest is now: a first harvest
    /// tells it from what is fresh.
    private func discardStaleReports() throws(LinuxError) {
        for block in blocks { written[block] = 0 }
        try log.harvestDirtyPages(into: &written)
        vmmWrites.harvest(into: &written)
        var faults = 0
        for block in blocks where written[block] != 0 {
            faults += (written[block] & ~uncleared[block] & watched[block]).nonzeroBitCount
            uncleared[block] |= written[block]
        }
        plan.pay(faults)
    }

    private func collect(_ now: UInt64) throws(LinuxError) {
        let policy = conditions.policy
        let unit = max(policy.shortestInterval, 1)
        let units = max(1, Int(clamping: (now - lastHarvest + unit / 2) / unit))
        lastHarvest = now
        for block in blocks { written[block] = 0 }
        try log.harvestDirtyPages(into: &written)
        vmmWrites.harvest(into: &written)
        var fresh = 0
        for block in blocks {
            cleared[block] = written[block] & ~uncleared[block]
            fresh += cleared[block].nonzeroBitCount
            written[block] |= uncleared[block]
        }
        noteBusy(now, fresh: fresh)
        let first = plan.begin(
            WatchPlan.Harvest(
                units: units, secondsPerUnit: Double(unit) / 1e9, faultsPerSecond: policy.faultsPerSecond,
                waitLimit: policy.backoffLimit, isBusy: isBusy), written)
        var left = 0
        for block in [first..<blocks.upperBound, 0..<first].joined() {
            let (candidates, faults) = takeReports(block, fresh: cleared[block], units: units)
            conditions.disturbances.faults += faults
            cleared[block] = plan.choose(block, candidates, dirty: written[block], faults: faults)
            uncleared[block] = written[block] & ~cleared[block]
            left += uncleared[block].nonzeroBitCount
        }
        journal.count { $0.pagesVolatile = left }
        if cleared.contains(where: { $0 != 0 }) { conditions.disturbances.calls += 1 }
        try log.clearDirtyPages(cleared)
    }

    /// Takes note of a block's pages that are reported as written.
    /// - Parameter fresh: those that were not known to be.
    /// - Returns: the pages that could be watched from now on, and how many had been cleared and cost the guest a fault.
    private func takeReports(_ block: Int, fresh: UInt64, units: Int) -> (candidates: UInt64, faults: Int) {
        var candidates: UInt64 = 0
        var faults = 0
        for number in BitNumbers(written[block]) {
            let page = block * 64 + number
            if pages.kind(page) == .untouched {
                pages.touch(page)
            } else if fresh & Self.bit(page) != 0 {
                faults += 1
            }
            if isWatched(page) {
                // Written between a clear and this harvest.
                unwatch(page)
                if !isBusy { volatility.backOff(page, limit: conditions.policy.backoffLimit) }
            }
            if volatility.wait(page) > 0 {
                volatility.tick(page, by: units)
            } else {
                candidates |= Self.bit(page)
            }
        }
        return (candidates, faults)
    }

    /// Whether the guest writes so many pages that were not known to be written that it is left alone, for a while.
    private func noteBusy(_ now: UInt64, fresh: Int) {
        let patience = conditions.policy.busyPatience
        guard patience > 0, fresh > max(256, pages.touchedCount / 32) else {
            busySince = nil
            wasPatient = false
            return
        }
        if wasPatient { return }
        let since = busySince ?? now
        busySince = since
        if now - since > patience {
            busySince = nil
            wasPatient = true
        }
    }

    // MARK: memory that nobody reported

    /// Untouched pages for which there is memory: a guest that reads a hole has the kernel fill it with zeros, and where the
    /// mapping is registered for write protection, KVM reports that to nobody.
    @discardableResult
    func findMemory(in slice: Range<Int>) -> Int {
        var found = 0
        var page = slice.lowerBound
        while page < slice.upperBound {
            guard isUntouchedHome(page) else {
                page += 1
                continue
            }
            var stop = page + 1
            while stop < slice.upperBound, isUntouchedHome(stop) { stop += 1 }
            while page < stop, let run = mapping.firstMemoryAtHome(page..<stop) {
                for next in run {
                    pages.touch(next)
                    watch(next)
                    // Perhaps the guest is just writing it: it is looked at when the next harvest does not report it.
                    written[next >> 6] |= Self.bit(next)
                }
                found += run.count
                page = run.upperBound
            }
            page = stop
        }
        return found
    }

    private func isUntouchedHome(_ page: Int) -> Bool {
        pages.kind(page) == .untouched && pages.backing(page) == .home
    }

    // MARK: what is to be looked at

    /// A way once around all blocks, from where the last one was left.
    struct Scan { fileprivate(set) var visited = 0 }

    /// The next pages that were watched and stayed clean; nil at the end.
    func nextCleanPages(_ scan: inout Scan) -> [Int]? {
        var chunk: [Int] = []
        while scan.visited < blocks.count {
            let block = (cursor + scan.visited) % blocks.count
            scan.visited += 1
            if watched[block] == 0 || plan.isOnTrial(block) { continue }
            for number in BitNumbers(watched[block] & ~written[block]) { chunk.append(block * 64 + number) }
            if chunk.count >= Self.chunkLength { return chunk }
        }
        return chunk.isEmpty ? nil : chunk
    }

    /// Leaves a scan before its end.
    /// - Returns: whether anything is left of it.
    func leave(_ scan: Scan) -> Bool {
        cursor = (cursor + scan.visited) % blocks.count
        return scan.visited < blocks.count
    }
}
