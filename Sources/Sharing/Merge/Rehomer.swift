internal import FrameStore
internal import GuestMemory

/// The way back: pages go home when sharing is turned off, when their store is lost, or when their frames save nothing.
final class Rehomer {
    /// Passes in which pages that map a lost store may move to the new one, before they go home.
    private static let patienceWithOrphans = 20

    private let window: Window
    private let pages: GuestPages
    private let tracker: DirtyTracker
    private let inFlight: InFlightCounts
    private let conditions: PassConditions
    private let journal: EngineJournal
    private var orphanPasses = 0

    init(
        _ window: Window, _ pages: GuestPages, _ tracker: DirtyTracker, _ inFlight: InFlightCounts,
        _ conditions: PassConditions, _ journal: EngineJournal
    ) {
        (self.window, self.pages, self.tracker, self.inFlight) = (window, pages, tracker, inFlight)
        (self.conditions, self.journal) = (conditions, journal)
    }

    /// Takes pages home, as many as a pause may hold: vCPUs and device threads are stopped, so nobody sees the moment
    /// between the new mapping and its bytes.
    /// - Returns: how many were taken.
    @discardableResult
    func rehome(_ chosen: [Int]) -> Int {
        let limit = max(1, min(conditions.policy.pauseLimit, window.mapping.copyLimit))
        var taken = 0
        for run in runs(of: chosen, limit: limit) where conditions.fatal == nil {
            for done in takeHome(run) {
                pages.rehome(done) { window.mapping.firstMemoryAtHome($0..<$0 + 1) == nil }
                taken += done.count
            }
        }
        journal.count { $0.pagesRehomed += taken }
        return taken
    }

    /// Takes home what can be taken of a run, in one pause.
    private func takeHome(_ run: Range<Int>) -> [Range<Int>] {
        var done: [Range<Int>] = []
        done.reserveCapacity(run.count)
        window.pausing {
            var start = run.lowerBound
            while start < run.upperBound, conditions.fatal == nil {
                // A transfer that is under way holds the page that is mapped now: what it writes later would be lost.
                var end = start
                while end < run.upperBound, inFlight.count(end) == 0 { end += 1 }
                if start < end {
                    do throws(MappingFailure) {
                        try window.mapping.mapHome(start..<end)
                        done.append(start..<end)
                    } catch { window.note(error) }
                }
                start = end + 1
            }
        }
        return done
    }

    /// Frames that nobody else maps save nothing and cost a mapping. Seen so several times, their pages go home, where
    /// they are looked at again like any other.
    func noteSingleMappers(_ named: [ClientPage]) {
        let enough = min(conditions.policy.singleMapperRounds, GuestPages.mostRounds)
        var due: [Int] = []
        for page in named.map(Int.init) where page < pages.count {
            guard isSteady(page), due.count < conditions.policy.pauseLimit else {
                pages.setSingleMapperRounds(page, 0)
                continue
            }
            let rounds = pages.singleMapperRounds(page) + 1
            pages.setSingleMapperRounds(page, rounds)
            if rounds >= enough { due.append(page) }
        }
        due.forEach { pages.setSingleMapperRounds($0, 0) }
        rehome(due)
        due.forEach(tracker.watch)
    }

    private func isSteady(_ page: Int) -> Bool { pages.kind(page) == .mapped && pages.isKnown(page) }

    /// Pages that still map a lost store: most move to the new one as they are found there. What is left after a while
    /// goes home, a few pages a pass, so that the lost store's memory comes back.
    /// - Returns: whether none is left.
    func settleOrphans() -> Bool {
        if pages.orphanCount == 0 {
            orphanPasses = 0
            return true
        }
        orphanPasses += 1
        if orphanPasses < Self.patienceWithOrphans { return false }
        let due = (0..<pages.count).lazy.filter(pages.isOrphan).prefix(conditions.policy.pauseLimit)
        let chosen = Array(due)
        rehome(chosen)
        chosen.forEach(tracker.watch)
        return pages.orphanCount == 0
    }

    /// Takes up to `limit` pages home, of all that are not, for turning sharing off. When none is left, the store is to forget
    /// whatever it knows of this guest.
    /// - Returns: whether none is left.
    func goHome(limit: Int) -> Bool {
        let away = (0..<pages.count).lazy.filter { self.pages.backing($0) != .home }
        let chosen = Array(away.prefix(limit))
        guard rehome(chosen) == chosen.count, chosen.count < limit else { return false }
        for page in 0..<pages.count { pages.forget(page) }
        return true
    }
}
