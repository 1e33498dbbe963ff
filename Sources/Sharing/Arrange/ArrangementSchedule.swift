// When mappings are arranged anew, and how: decisions on the numbers of each pass alone.
//
//   resting --much changed--> round: slice by slice, move what is in a wrong place, then join
//      ^                                              |   what the kernel has in pieces
//      \______________________________________________/
//
// It comes to an end on contents that do not change: a round begins only when there are noticeably more (or fewer) boundaries or
// pieces than the last one left behind, or mappings cost twice as much, or half.

/// Decides when mappings are arranged, and keeps where a round has got to.
struct ArrangementSchedule {
    /// What a pass found.
    struct Situation {
        var pass: Int
        /// Pages looked at, merged, accounted for in this pass.
        var activity: Int
        /// Places where the backing is not continued.
        var boundaries: Int
        /// Neighbours that the kernel has not joined though the backing is continued.
        var unjoined: Int
        /// What a mapping costs; bytes.
        var price: Int
    }

    /// What is done with a slice: first what is in a wrong place is moved, then pieces are joined.
    enum Step { case moving, joining }

    /// A round under way.
    struct Round {
        let joins: Bool
        var slice = 0
        var step = Step.moving
        /// Up to where the step is done; in pages.
        var cursor = 0
        /// Enough mappings are saved by moving what is in a wrong place in this slice.
        var isWorthIt = false
        /// Something could not be moved for now.
        var isIncomplete = false
    }

    private(set) var round: Round?
    /// The last pass in which much changed.
    private var lastChange = 0
    /// What the last round left behind.
    private var boundaries = 0
    private var unjoined = 0
    private var price = MemoryPrice.leastMapping
    /// The pass before which no round begins.
    private var earliest = 0
    /// Rounds in a row that could not move everything.
    private var failures = 0
    private static let failureLimit = 4

    /// Much changed just now.
    mutating func noteChange(_ pass: Int) {
        lastChange = pass
        failures = 0
    }

    /// Whether a round goes on in this pass, or begins.
    mutating func isDue(_ now: Situation, _ policy: SharingPolicy) -> Bool {
        guard now.activity <= policy.arrangementCalm else { return false }
        if round != nil { return true }
        let calm = now.pass - lastChange
        guard now.pass >= earliest, calm >= policy.arrangementRest else { return false }
        let least = max(policy.arrangementGain, boundaries / 16)
        let joins = now.unjoined - unjoined >= least || policy.arrangesAll
        let isRetry = failures > 0 && failures < Self.failureLimit
        let isOtherPrice = now.price >= 2 * price || 2 * now.price <= price
        guard joins || isRetry || isOtherPrice || abs(now.boundaries - boundaries) >= least else {
            return false
        }
        round = Round(joins: joins)
        return true
    }

    /// The round has got on.
    mutating func update(_ round: Round) { self.round = round }

    /// The round is over.
    mutating func end(_ now: Situation, _ policy: SharingPolicy) {
        guard let round else { return }
        self.round = nil
        (boundaries, price) = (now.boundaries, now.price)
        // Pieces that are left though all were to be joined, stay.
        unjoined = round.joins ? now.unjoined : min(unjoined, now.unjoined)
        failures = round.isIncomplete ? failures + 1 : 0
        earliest = now.pass + policy.arrangementInterval << min(failures, Self.failureLimit)
    }
}
