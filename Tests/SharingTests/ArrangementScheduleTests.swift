import TestSupport
import Testing

@testable import Sharing

/// When mappings are arranged: rounds begin when they are worth it, and come to an end.
@Suite struct ArrangementScheduleTests {
    /// A guest whose rounds do what a round can: fewer boundaries, fewer unjoined if they are joined.
    private struct Guest {
        var schedule = ArrangementSchedule()
        var policy = SharingPolicy()
        var pass = 0
        var boundaries: Int
        var unjoined: Int
        var price = MemoryPrice.leastMapping
        var rounds: [ArrangementSchedule.Round] = []

        var situation: ArrangementSchedule.Situation { found(0) }
        private func found(_ activity: Int) -> ArrangementSchedule.Situation {
            ArrangementSchedule.Situation(
                pass: pass, activity: activity, boundaries: boundaries, unjoined: unjoined, price: price)
        }

        /// - Returns: whether a round began and ended.
        @discardableResult
        mutating func runPass(
            activity: Int = 0, _ effect: (inout Guest, inout ArrangementSchedule.Round) -> Void = { _, _ in }
        ) -> Bool {
            defer { pass += 1 }
            if activity > policy.arrangementCalm { schedule.noteChange(pass) }
            guard schedule.isDue(found(activity), policy), var round = schedule.round else { return false }
            effect(&self, &round)
            schedule.update(round)
            schedule.end(found(activity), policy)
            rounds.append(round)
            return true
        }
    }

    @Test func itEndsWhateverRoundsAchieve() {
        var random = SeededGenerator(for: "itEndsWhateverRoundsAchieve")
        for _ in 0..<300 {
            var guest = Guest(
                boundaries: Int.random(in: 0...2000, using: &random),
                unjoined: Int.random(in: 0...500, using: &random))
            for _ in 0..<Int.random(in: 0...20, using: &random) {
                guest.runPass(activity: Int.random(in: 0...600, using: &random))
            }
            guest.rounds = []
            // Nothing changes any more but by rounds, some of which achieve nothing or fail in part.
            let isFailing = random.oneIn(4)
            for _ in 0..<2000 {
                guest.runPass { guest, round in
                    round.isIncomplete = isFailing || random.oneIn(3)
                    guest.boundaries -= Int.random(in: 0...guest.boundaries, using: &random) / 2
                    if round.joins { guest.unjoined -= Int.random(in: 0...guest.unjoined, using: &random) }
                }
            }
            let count = guest.rounds.count
            #expect(count <= 12, "\(guest.boundaries) boundaries, \(guest.unjoined) unjoined left")
            for _ in 0..<200 { guest.runPass() }
            #expect(guest.rounds.count == count)
        }
    }

    @Test func noticeablyMoreSeamsAreArrangedOnce() {
        var guest = Guest(boundaries: 400, unjoined: 0)
        for _ in 0..<100 { guest.runPass() }
        #expect(guest.rounds.count == 1)
        // A few boundaries more are not worth it; noticeably more are, or fewer.
        guest.boundaries += 8
        for _ in 0..<100 { guest.runPass() }
        #expect(guest.rounds.count == 1)
        guest.boundaries += 30
        for _ in 0..<100 { guest.runPass() }
        #expect(guest.rounds.count == 2)
        guest.boundaries -= 60
        for _ in 0..<100 { guest.runPass() }
        #expect(guest.rounds.count == 3)
    }

    @Test func dearerMappingsBeginARoundAndCheaperOnesToo() {
        var guest = Guest(boundaries: 0, unjoined: 0)
        for (price, rounds) in [
            (272, 0), (500, 0), (600, 1), (1100, 1), (1200, 2), (700, 2), (600, 3), (300, 4),
        ] {
            guest.price = price
            for _ in 0..<50 { guest.runPass() }
            #expect(guest.rounds.count == rounds, "\(price) bytes")
        }
    }

    @Test func nothingHappensWhileMuchChanges() {
        var guest = Guest(boundaries: 400, unjoined: 100)
        for pass in 0..<100 { guest.runPass(activity: pass % 2 == 0 ? 1000 : 10) }
        #expect(guest.rounds.isEmpty)
        for _ in 0..<20 { guest.runPass() }
        #expect(!guest.rounds.isEmpty)
    }

    @Test func piecesAreJoinedOnceThereAreSome() {
        var guest = Guest(boundaries: 10, unjoined: 5)
        guest.policy.arrangementGain = 12
        for _ in 0..<100 { guest.runPass() }
        #expect(guest.rounds.isEmpty)
        guest.unjoined = 40
        for _ in 0..<100 { guest.runPass() }
        #expect(guest.rounds.count == 1 && guest.rounds[0].joins)
        // They could not be joined: not again, until there are more.
        guest.unjoined = 50
        for _ in 0..<100 { guest.runPass() }
        #expect(guest.rounds.count == 1)
        guest.unjoined = 60
        for _ in 0..<100 { guest.runPass() }
        #expect(guest.rounds.count == 2)
    }

    @Test func aRoundGoesOnOverCalmPassesOnly() {
        var guest = Guest(boundaries: 400, unjoined: 0)
        while guest.schedule.round == nil, guest.pass < 100 {
            _ = guest.schedule.isDue(guest.situation, guest.policy)
            guest.pass += 1
        }
        #expect(guest.schedule.round != nil)
        var busy = guest.situation
        busy.activity = guest.policy.arrangementCalm + 1
        let goesOnBusy = guest.schedule.isDue(busy, guest.policy)
        #expect(!goesOnBusy)
        let goesOnCalm = guest.schedule.isDue(guest.situation, guest.policy)
        #expect(goesOnCalm)
    }
}
