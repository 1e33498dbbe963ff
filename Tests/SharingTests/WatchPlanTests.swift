@testable import SharingTestKit
import GuestMemory
import TestSupport
import Testing

@testable import Sharing

/// Which pages are watched, and what that costs guests that write.
@Suite struct WatchPlanTests {
    /// A guest's pages under a plan alone, a harvest every fifth of a second as in a VMM.
    private struct Guest {
        var plan: WatchPlan
        var harvest = WatchPlan.Harvest(secondsPerUnit: 0.2, faultsPerSecond: 1000, waitLimit: 6)
        /// Reported as written; cleared, and not written since.
        var dirty: [UInt64]
        var clean: [UInt64]
        private var waiting: [UInt64]
        private(set) var faults = 0
        private var due: [Int]

        init(blocks: Int) {
            plan = WatchPlan(blocks: blocks)
            dirty = [UInt64](repeating: 0, count: blocks)
            clean = dirty
            waiting = dirty
            due = [Int](repeating: 0, count: blocks)
        }

        mutating func write(_ page: Int) {
            let bit = UInt64(1) << UInt64(page & 63)
            if clean[page >> 6] & bit != 0 {
                faults += 1
                due[page >> 6] += 1
            }
            clean[page >> 6] &= ~bit
            dirty[page >> 6] |= bit
        }

        mutating func look() {
            let first = plan.begin(harvest, dirty)
            for offset in dirty.indices {
                let block = (first + offset) % dirty.count
                let chosen = plan.choose(block, dirty[block], dirty: dirty[block], faults: due[block])
                #expect(chosen & ~dirty[block] == 0, "only what was written can be cleared")
                due[block] = 0
                clean[block] |= chosen
                dirty[block] &= ~chosen
            }
        }

        func isClean(_ page: Int) -> Bool { clean[page >> 6] & 1 << UInt64(page & 63) != 0 }
        var cleanCount: Int { clean.reduce(0) { $0 + $1.nonzeroBitCount } }
    }

    @Test func whatIsWrittenOnceIsWatchedAtOnce() {
        var guest = Guest(blocks: 50)
        for page in 0..<3200 { guest.write(page) }
        guest.look()
        #expect(guest.cleanCount == 3200 && guest.faults == 0)
    }

    @Test func withoutALimitEverythingIsWatched() {
        var guest = Guest(blocks: 8)
        guest.harvest.faultsPerSecond = .infinity
        for _ in 0..<20 {
            for page in 0..<512 { guest.write(page) }
            guest.look()
            #expect(guest.cleanCount == 512)
        }
    }

    /// All of memory is written again and again: after the first look, little more than a page of each block is tried.
    @Test func aGuestThatRewritesEverythingIsLeftAlone() {
        var guest = Guest(blocks: 64)
        for round in 0..<300 {
            for page in 0..<4096 { guest.write(page) }
            // As at the start of a guest, when all it writes is new.
            guest.harvest.isBusy = round == 0
            guest.look()
        }
        // Sentinels: at the start, after 1, 3, 7, 15 units, then after 31 each time.
        #expect(guest.faults <= 64 * (6 + 300 / 31))
        #expect((0..<64).allSatisfy(guest.plan.isHot))
        // It rests: no block waits for longer than 31 units, then comes a sentinel, then all.
        for _ in 0..<31 + 3 { guest.look() }
        #expect(guest.cleanCount == 4096)
        guest.look()
        #expect(!(0..<64).contains(where: guest.plan.isHot), "what stayed clean is trusted again")
    }

    /// Pages written at random, at all speeds: what that costs is bounded by the budget but for the first looks.
    @Test(arguments: [0.02, 0.2, 0.5, 1]) func faultsAreBounded(chance: Double) {
        var generator = SeededGenerator(for: "faults \(chance)")
        var guest = Guest(blocks: 32)
        guest.harvest.faultsPerSecond = 50
        let pages = 32 * 64
        var counts: [Int] = []
        for round in 0..<1200 {
            for page in 0..<pages where chance == 1 || Double.random(in: 0..<1, using: &generator) < chance {
                guest.write(page)
            }
            guest.look()
            if round % 600 == 599 { counts.append(guest.faults) }
        }
        // Once all pages; then 120 seconds' income, and as much again, since what is on trial is found out only afterwards.
        #expect(counts[0] <= pages + 2 * 120 * 50, "\(counts)")
        #expect(counts[1] - counts[0] <= 2 * 120 * 50, "\(counts)")
    }

    /// Whatever the others do, and however little the budget: a page that is not written any more is watched some time.
    @Test(arguments: [10.0, 1000]) func nobodyIsForgotten(income: Double) {
        var generator = SeededGenerator(for: "forgotten \(income)")
        for _ in 0..<3 {
            var guest = Guest(blocks: 6)
            guest.harvest.faultsPerSecond = income
            let pages = 6 * 64
            let chances = (0..<pages).map { _ in [0, 0.01, 0.3, 1].randomElement(using: &generator)! }
            for page in 0..<pages { guest.write(page) }
            var left = Set((0..<pages).filter { chances[$0] == 0 })
            var rounds = 0
            while !left.isEmpty, rounds < 50_000 {
                for page in 0..<pages
                where chances[page] > 0 && Double.random(in: 0..<1, using: &generator) < chances[page] {
                    guest.write(page)
                }
                guest.harvest.isBusy = Bool.random(using: &generator) && rounds < 100
                guest.look()
                left = left.filter { !guest.isClean($0) }
                rounds += 1
            }
            #expect(left.isEmpty, "after \(rounds) harvests")
        }
    }

    // MARK: the engine

    private func makeRun(pages: Int, busyPatience: UInt64 = 0) throws -> ModelRun {
        try ModelRun.ofTwo {
            $0.pages = pages
            $0.options.constantHash = false
            $0.policy = {
                $0.busyPatience = busyPatience
                $0.backoffLimit = 6
            }
        }
    }

    private func pass(_ run: ModelRun) throws {
        run.world.time += 20_000_000
        try run.passes(1)
    }

    /// What one guest rewrites for ever is hardly touched, and does not keep the rest from being shared.
    @Test func calmPagesAreSharedBesideHotOnes() throws {
        let run = try makeRun(pages: 512)
        let member = try #require(run.member(0))
        for guest in 0...1 { try run.fill(guest, 0..<512, base: 100) }
        for round in 0..<60 as Range<UInt64> {
            try run.fill(0, 0..<256, base: 10_000 + round * 1000)
            try pass(run)
        }
        #expect(member.mappedFrames == Array(256..<512))
        // The first writes; the first look at all; then sentinels.
        #expect(member.guest.writeFaults <= 512 + 256 + 4 * 6)
        #expect(member.engine.statistics.pagesVolatile >= 252)
        // It calms down, with what the other one has.
        try run.fill(0, 0..<256, base: 100)
        for _ in 0..<64 + 4 { try pass(run) }
        #expect(member.mappedFrames == Array(0..<512))
        #expect(member.engine.statistics.pagesVolatile == 0)
        #expect(run.world.violations.isEmpty)
    }

    /// Waits are times: passes that come seldom do not make them longer.
    @Test func waitsAreCountedInTime() throws {
        let run = try makeRun(pages: 64)
        let member = try #require(run.member(0))
        for guest in 0...1 { try run.fill(guest, 0..<8, base: 100) }
        for round in 0..<40 as Range<UInt64> {
            if round < 39 {
                try run.fill(0, 0..<1, base: 10_000 + round)
            } else {
                try run.fill(0, 0..<1, base: 100)
            }
            try pass(run)
        }
        #expect(member.mappedFrames == Array(1..<8))
        // 63 units at most: a second is fifty.
        for _ in 0..<4 {
            run.world.time += 1_000_000_000
            try pass(run)
        }
        #expect(member.mappedFrames == Array(0..<8))
    }
}
