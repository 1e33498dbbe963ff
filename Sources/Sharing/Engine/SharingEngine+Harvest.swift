internal import FrameStore
internal import GuestMemory
internal import LinuxHost

// Steps 1 and 2 of a pass: what was written, and what that means for merged pages.
extension SharingEngine {
    /// Pages in a row that are looked up in the page map though nothing is asked about them.
    private static let gapInLook = 32
    /// Pages that are looked up at a time.
    private static let lookLimit = 8192

    /// Whether the guest writes so many pages that were not known to be written that it is left alone, for a while.
    private func noteBusy(_ now: UInt64, fresh: Int) {
        let touched = records.count - records.count(of: .untouched)
        guard policy.busyPatience > 0, fresh > max(256, touched / 32) else {
            busySince = nil
            wasPatient = false
            return
        }
        if wasPatient { return }
        let since = busySince ?? now
        busySince = since
        if now - since > policy.busyPatience {
            busySince = nil
            wasPatient = true
        }
    }

    /// Step 1. Which pages are cleared, the plan decides: each clear costs the guest a fault.
    func harvest(_ now: UInt64) throws(LinuxError) {
        let unit = max(policy.shortestInterval, 1)
        let units = max(1, Int(clamping: (now - lastHarvest + unit / 2) / unit))
        lastHarvest = now
        for index in dirty.indices { dirty[index] = 0 }
        try log.harvestDirtyPages(into: &dirty)
        vmmWrites.harvest(into: &dirty)
        var fresh = 0
        for index in dirty.indices {
            toClear[index] = dirty[index] & ~deferred[index]
            fresh += toClear[index].nonzeroBitCount
            dirty[index] |= deferred[index]
        }
        noteBusy(now, fresh: fresh)
        let first = plan.begin(
            WatchPlan.Harvest(
                units: units, secondsPerUnit: Double(unit) / 1e9, faultsPerSecond: policy.faultsPerSecond,
                waitLimit: policy.backoffLimit, isBusy: busySince != nil), dirty)
        var left = 0
        for index in [first..<dirty.count, 0..<first].joined() {
            let (candidates, faults) = take(index, fresh: toClear[index], units: units)
            disturbances.faults += faults
            toClear[index] = plan.choose(index, candidates, dirty: dirty[index], faults: faults)
            deferred[index] = dirty[index] & ~toClear[index]
            left += deferred[index].nonzeroBitCount
        }
        statistics.pagesVolatile = left
        if toClear.contains(where: { $0 != 0 }) { disturbances.calls += 1 }
        try log.clearDirtyPages(toClear)
    }

    /// Takes note of a block's pages that are reported as written.
    /// - Parameter fresh: those that were not known to be.
    /// - Returns: the pages that could be watched from now on, and how many had been cleared and cost the guest a fault.
    private func take(_ index: Int, fresh: UInt64, units: Int) -> (candidates: UInt64, faults: Int) {
        var candidates: UInt64 = 0
        var faults = 0
        var bits = dirty[index]
        while bits != 0 {
            let bit = bits & (0 &- bits)
            bits ^= bit
            let page = index * 64 + bit.trailingZeroBitCount
            if records.kind(page) == .untouched {
                records.setKind(page, .home)
            } else if fresh & bit != 0 {
                faults += 1
            }
            if isWatched(page) {
                // Written between a clear and this harvest.
                unwatch(page)
                if busySince == nil { records.backOff(page, limit: policy.backoffLimit) }
            }
            if records.wait(page) > 0 {
                records.tick(page, by: units)
            } else {
                candidates |= bit
            }
        }
        return (candidates, faults)
    }

    /// Step 2: every dirty page that was merged is proved private or looked at again next time; all that was cleared is
    /// watched.
    func account() -> Int {
        var activity = 0
        while let page = rechecks.popFirst() {
            if isMerged(page), mapping.arePrivate(page..<page + 1)[0] {
                noteUnshared(page)
                watch(page)
            }
        }
        for index in dirty.indices where dirty[index] != 0 {
            let unmerged = findUnmerged(index)
            var bits = dirty[index]
            while bits != 0 {
                let bit = bits & (0 &- bits)
                bits ^= bit
                let page = index * 64 + bit.trailingZeroBitCount
                activity += 1
                switch records.kind(page) {
                case .mapped, .zero:
                    if unmerged & bit != 0 {
                        noteUnshared(page)
                    } else {
                        rechecks.insert(page)
                    }
                case .home, .unshared: forget(page)
                case .untouched: break
                }
                if toClear[index] & bit != 0, records.kind(page) == .home || records.kind(page) == .unshared {
                    watch(page)
                }
            }
        }
        return activity
    }

    /// Which of a block's pages that are reported as written and were merged have a private copy now, by one look.
    private func findUnmerged(_ index: Int) -> UInt64 {
        var asked: UInt64 = 0
        var bits = dirty[index]
        while bits != 0 {
            let bit = bits & (0 &- bits)
            bits ^= bit
            if isMerged(index * 64 + bit.trailingZeroBitCount) { asked |= bit }
        }
        if asked == 0 { return 0 }
        let first = index * 64 + asked.trailingZeroBitCount
        let last = index * 64 + 63 - asked.leadingZeroBitCount
        var found: UInt64 = 0
        for (offset, isPrivate) in mapping.arePrivate(first..<last + 1).enumerated() where isPrivate {
            found |= 1 << UInt64(first + offset - index * 64)
        }
        return found & asked
    }

    /// Looks at a slice of all pages, round and round, for what was never reported: merged pages that are private now, since
    /// a missed report would keep a reference for ever, and pages that a guest's read alone gave memory at home.
    func audit() -> Int {
        let passes = max(1, policy.auditPasses)
        let slice = auditCursor..<min(auditCursor + (records.count + passes - 1) / passes, records.count)
        auditCursor = slice.upperBound == records.count ? 0 : slice.upperBound
        return proveAgain(slice) + findMemory(slice)
    }

    /// Untouched pages for which there is memory: a guest that reads a hole has the kernel fill it with zeros, and where the
    /// mapping is registered for write protection, KVM reports that to nobody.
    @discardableResult
    func findMemory(_ slice: Range<Int>) -> Int {
        var found = 0
        var page = slice.lowerBound
        while page < slice.upperBound {
            guard records.kind(page) == .untouched, records.backing(page) == .home else {
                page += 1
                continue
            }
            var stop = page + 1
            while stop < slice.upperBound, records.kind(stop) == .untouched, records.backing(stop) == .home {
                stop += 1
            }
            while page < stop, let run = mapping.firstMemoryAtHome(page..<stop) {
                for next in run {
                    records.setKind(next, .home)
                    watch(next)
                    // Perhaps the guest is just writing it: it is looked at when the next harvest does not report it.
                    dirty[next >> 6] |= 1 << UInt64(next & 63)
                }
                found += run.count
                page = run.upperBound
            }
            page = stop
        }
        return found
    }

    /// Starts the log. What has memory by then counts as written long ago, and is cleared as the plan says; all else is
    /// cleared at once, which costs the guest nothing, so that its first write is reported.
    /// - Returns: false when the kernel has no memory for the log now.
    func beginLog() throws(LinuxError) -> Bool {
        do throws(LinuxError) { try log.beginLogging() } catch {
            guard error.isForWantOfMemory else { throw error }
            statistics.putOffNoMemory += 1
            return false
        }
        isLogging = true
        for index in dirty.indices { dirty[index] = 0 }
        vmmWrites.harvest(into: &dirty)
        var page = 0
        while let run = mapping.firstMemoryAtHome(page..<records.count) {
            for page in run {
                records.setKind(page, .home)
                deferred[page >> 6] |= 1 << UInt64(page & 63)
            }
            page = run.upperBound
        }
        for index in toClear.indices { toClear[index] = ~deferred[index] }
        if records.count % 64 != 0 { toClear[toClear.count - 1] &= 1 << UInt64(records.count % 64) - 1 }
        disturbances.calls += 1
        try log.clearDirtyPages(toClear)
        // What the guest touched between the look and the clear, the audit finds.
        return true
    }

    private func proveAgain(_ slice: Range<Int>) -> Int {
        var found = 0
        let end = slice.upperBound
        var page = slice.lowerBound
        while page < end {
            guard isMerged(page) else {
                page += 1
                continue
            }
            // Up to the last one before a wider gap: a look costs more than some pages in vain.
            var stop = page + 1
            var next = stop
            while next < end, next - stop <= Self.gapInLook, next - page < Self.lookLimit {
                if isMerged(next) { stop = next + 1 }
                next += 1
            }
            for (offset, isPrivate) in mapping.arePrivate(page..<stop).enumerated()
            where isPrivate && isMerged(page + offset) {
                noteUnshared(page + offset)
                watch(page + offset)
                found += 1
            }
            page = stop
        }
        return found
    }

    private func isMerged(_ page: Int) -> Bool {
        switch records.kind(page) {
        case .mapped, .zero: true
        case .untouched, .home, .unshared: false
        }
    }

    func noteUnshared(_ page: Int) {
        statistics.pagesUnsharedTotal += 1
        note(.unshared, page)
        records.setKind(page, .unshared)
        forget(page)
    }

    func tellMovedOver() {
        // Whom nobody hears has not told it.
        guard countsEarlier, store != nil else { return }
        countsEarlier = false
        var batch = StoreBatch()
        batch.hasMovedOver = true
        guard let reply = ask(batch) else { return }
        keep(reply.promotions)
    }

    /// Pages that still map a lost store: most move to the new one as they are found there. What is left after a while
    /// goes home, a few pages a pass, so that the lost store's memory comes back.
    func settleOrphans() {
        guard store != nil else { return }
        if !hasOrphans { return tellMovedOver() }
        orphanPasses += 1
        if orphanPasses < 20 { return }
        var pages: [Int] = []
        for page in 0..<records.count where records.isOrphan(page) {
            pages.append(page)
            if pages.count == policy.pauseLimit { break }
        }
        if pages.isEmpty {
            hasOrphans = false
            orphanPasses = 0
        }
        rehome(pages)
        pages.forEach(watch)
    }
}
