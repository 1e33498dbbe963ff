internal import GuestMemory
internal import LinuxHost

// The way back: pages go home when sharing is turned off, or when their store is lost.
extension SharingEngine {
    /// Takes pages home, as many as a pause may hold: vCPUs and device threads are stopped, so nobody sees the moment
    /// between the new mapping and its bytes.
    /// - Returns: how many were taken.
    @discardableResult
    func rehome(_ pages: [Int]) -> Int {
        let limit = max(1, min(policy.pauseLimit, mapping.bufferedFrames))
        var taken = 0
        var start = 0
        while start < pages.count, fatal == nil {
            var end = start + 1
            while end < pages.count, pages[end] == pages[end - 1] + 1, end - start < limit { end += 1 }
            let done = rehomeRun(pages[start]..<pages[end - 1] + 1)
            done.forEach(noteHome)
            taken += done.reduce(0) { $0 + $1.count }
            start = end
        }
        count { $0.pagesRehomed += taken }
        return taken
    }

    /// Takes home what can be taken of a run, in one pause.
    private func rehomeRun(_ run: Range<Int>) -> [Range<Int>] {
        var done: [Range<Int>] = []
        done.reserveCapacity(run.count)
        writers.pauseWriters()
        let opened = monotonicNanoseconds()
        var start = run.lowerBound
        while start < run.upperBound, fatal == nil {
            // A transfer that is under way holds the page that is mapped now: what it writes later would be lost.
            var end = start
            while end < run.upperBound, inFlight.count(end) == 0 { end += 1 }
            if start < end {
                do throws(MappingFailure) {
                    try mapping.mapHome(start..<end)
                    done.append(start..<end)
                } catch { note(error) }
            }
            start = end + 1
        }
        let length = monotonicNanoseconds() - opened
        writers.resumeWriters()
        noteStop(length)
        return done
    }

    private func noteHome(_ run: Range<Int>) {
        records.setBacking(run, .home)
        for page in run {
            forget(page)
            note(.rehomed, page)
            // A page of zeros is a hole now, unless it was written and not reported yet.
            let isHole =
                records.kind(page) == .zero && mapping.firstMemoryAtHome(page..<page + 1) == nil
            records.setKind(page, isHole ? .untouched : .home)
            records.setOrphan(page, false)
        }
    }

    /// A mapping failed, and home took its place. In a window, so nothing is allocated: a reference that a page has is given
    /// back afterwards, with those of the other pages that could not be mapped.
    func noteFallenHome(_ pages: Range<Int>) {
        records.setBacking(pages, .home)
        for page in pages {
            records.setKind(page, .home)
            records.setOrphan(page, false)
        }
        statistics.pagesRehomed += pages.count
    }

    /// Takes up to `limit` pages home, of all that are not; for turning sharing off, with a policy that says so. When
    /// none is left, the store forgets this guest.
    /// - Returns: whether any are left.
    public func goHome(limit: Int) -> Bool {
        guard hasMemory(for: .pass) else {
            keepInTouch()
            return true
        }
        var pages: [Int] = []
        for page in 0..<records.count where records.backing(page) != .home {
            if pages.count == limit { break }
            pages.append(page)
        }
        let isLast = rehome(pages) == pages.count && pages.count < limit
        if isLast { for page in 0..<records.count where records.isKnown(page) { forget(page) } }
        sendForgotten()
        if isLast {
            // What an earlier connection counted is mapped no more, either.
            hasOrphans = false
            tellMovedOver()
            // Frames are freed when every client has spoken once more.
            speak()
        }
        flushTrace()
        refreshStatistics()
        return fatal == nil && !isLast
    }
}
