@testable import FrameStore
import GuestMemory
import TestSupport
import Testing

@testable import Sharing

/// The cheapest arrangement, against all there are.
@Suite struct ArrangementTests {
    /// What a page is, as the planner sees it.
    private func randomRecords(_ count: Int, _ random: inout SeededGenerator) throws -> GuestPages {
        let records = try GuestPages.testing(count)
        var page = 0
        while page < count {
            let end = min(count, page + Int.random(in: 1...3, using: &random))
            let backing: PageBacking = [
                .home, .zero, .frame(FrameLocation(UInt64(1000 + page))),
                .frame(FrameLocation(UInt64(5000 + page))),
            ].randomElement(using: &random)!
            records.back(page..<end, backing)
            // Pages of zeros and of frames may have been written, and those at home, too.
            for page in page..<end where random.oneIn(2) {
                if backing == .home { records.touch(page) } else { records.unshare(page) }
            }
            page = end
        }
        return records
    }

    private func cost(
        _ records: GuestPages, _ territories: [Territory], price: Int, giveUp: Int, fixed: Set<Int>
    ) -> Int? {
        var total = 0
        var asked: [Territory] = [.home, .zero]
        for (page, territory) in territories.enumerated() {
            // Frames are thought of from the first page on that has some.
            asked.append(Territory(records.backing(page), page: page))
            if !asked.contains(territory) { return nil }
            if page > 0, territories[page - 1] != territory { total += price }
            if territory == Territory(records.backing(page), page: page) { continue }
            if fixed.contains(page) { return nil }
            switch records.kind(page) {
            case .home, .unshared: total += 16
            case .untouched where territory == .zero: total += 16
            default: total += giveUp
            }
        }
        return total
    }

    private func givenUp(_ records: GuestPages, _ territories: [Territory]) -> Int {
        territories.indices.count { page in
            if territories[page] == Territory(records.backing(page), page: page) { return false }
            return switch records.kind(page) {
            case .home, .unshared: false
            case .untouched: territories[page] != .zero
            case .mapped, .zero: true
            }
        }
    }

    @Test func noArrangementIsCheaper() throws {
        var random = SeededGenerator(for: "noArrangementIsCheaper")
        let choices: [Territory] = [.home, .zero, .frames(1000), .frames(5000)]
        for _ in 0..<40 {
            let count = Int.random(in: 1...7, using: &random)
            let records = try randomRecords(count, &random)
            let price = [40, 512, 1024, 2048].randomElement(using: &random)!
            let giveUp = [1024, 1 << 30].randomElement(using: &random)!
            let fixed = Set((0..<count).filter { _ in random.oneIn(6) })
            let terrain = Terrain(records, 0..<count) { fixed.contains($0) }
            let plan = Arrangement(terrain, mappingCost: price, giveUpCost: giveUp)
            let found = plan.stretches.flatMap { stretch in stretch.pages.map { _ in stretch.territory } }
            try #require(found.count == count)
            let mine = try #require(cost(records, found, price: price, giveUp: giveUp, fixed: fixed))
            var least = Int.max
            for code in 0..<Int(1) << (2 * count) {
                let tried = (0..<count).map { choices[code >> (2 * $0) & 3] }
                if let cost = cost(records, tried, price: price, giveUp: giveUp, fixed: fixed) {
                    least = min(least, cost)
                }
            }
            #expect(mine == least, "\(records) \(price) \(giveUp)")
            #expect(terrain.seams == records.boundaries)
            #expect(plan.seams == zip(found, found.dropFirst()).count { $0 != $1 })
            #expect(plan.givenUp == givenUp(records, found))
        }
    }

    @Test func manyNumberingsAreFollowedToo() throws {
        // Each stretch of frames has its own numbering: more than the planner keeps in mind at a time.
        let records = try GuestPages.testing(64)
        for stretch in 0..<16 {
            let pages = stretch * 4..<stretch * 4 + 4
            records.back(pages, .frame(FrameLocation(UInt64(10_000 * (stretch + 1)))))
            for page in pages where page % 4 == 1 { records.unshare(page) }
        }
        let plan = Arrangement(Terrain(records, 0..<64) { _ in false }, giveUpCost: Arrangement.impossible)
        #expect(plan.stretches.count == 16)
        #expect(plan.givenUp == 0)
        #expect(
            plan.stretches.allSatisfy {
                $0.territory == Territory(records.backing($0.pages.lowerBound), page: $0.pages.lowerBound)
            })
    }

    /// Frames in place with lone pages of others among them: each costs two mappings, and longer stretches do, too.
    private func fragmented(_ lengths: [Int]) throws -> GuestPages {
        let records = try GuestPages.testing(lengths.count * 20)
        records.back(0..<records.count, .frame(FrameLocation(1000)))
        for (index, length) in lengths.enumerated() {
            let start = index * 20 + 5
            records.back(start..<start + length, .frame(FrameLocation(UInt64(50_000 * (index + 1)))))
        }
        return records
    }

    @Test func theCheapestPagesAreGivenUpAndNoMoreThanTheGoalTakes() throws {
        let records = try fragmented([1, 3, 1, 2, 1, 6])
        let terrain = Terrain(records, 0..<records.count) { _ in false }
        #expect(terrain.seams == 12)
        for (goal, givenUp, seams) in [(12, 0, 12), (6, 3, 6), (4, 5, 4), (3, 8, 2), (0, 14, 0)] {
            let plan = Arrangement.best(terrain, goal: goal, allowance: 100)
            #expect(plan.givenUp == givenUp && plan.seams == seams, "goal \(goal)")
        }
    }

    @Test func nothingIsGivenUpForLittle() throws {
        let records = try fragmented([1, 3, 1, 2, 1, 6])
        let terrain = Terrain(records, 0..<records.count) { _ in false }
        // Three pages take it half of the way to no seams; two, or the way from there on, are not to be had.
        #expect(Arrangement.best(terrain, goal: 0, allowance: 3).seams == 6)
        #expect(Arrangement.best(terrain, goal: 0, allowance: 2).givenUp == 0)
        #expect(Arrangement.best(terrain, goal: 0, allowance: 0).givenUp == 0)
        #expect(Arrangement.best(terrain, goal: 0, allowance: -7).givenUp == 0)
    }

    /// The guest's own pages become private copies over one mapping of zeros.
    @Test func pagesOfTheGuestsOwnGoWhereverTheyAreWanted() throws {
        let records = try GuestPages.testing(100)
        for page in 0..<100 {
            if page % 2 == 0 { records.back(page..<page + 1, .zero) } else { records.touch(page) }
        }
        let plan = Arrangement.best(Terrain(records, 0..<100) { _ in false }, goal: 0, allowance: 0)
        #expect(plan.givenUp == 0 && plan.seams == 0)
    }

    /// Whatever it is given: never more seams than before, never more given up than allowed, the goal whenever it can be
    /// reached; and what was arranged once stays as it is.
    @Test func plansKeepTheirPromises() throws {
        var random = SeededGenerator(for: "plansKeepTheirPromises")
        for _ in 0..<200 {
            let count = Int.random(in: 1...300, using: &random)
            let records = try randomRecords(count, &random)
            let slice = Int.random(in: 0..<count, using: &random)..<count
            let fixed = Set((0..<count).filter { _ in random.oneIn(20) })
            let terrain = Terrain(records, slice) { fixed.contains($0) }
            let goal = Int.random(in: 0...100, using: &random)
            let allowance = Int.random(in: -3...40, using: &random)
            let plan = Arrangement.best(terrain, goal: goal, allowance: allowance)
            let free = Arrangement.best(terrain, goal: goal, allowance: 0)
            #expect(free.givenUp == 0 && free.seams <= terrain.seams && plan.seams <= free.seams)
            #expect(plan.givenUp <= max(0, allowance))
            if free.seams <= goal { #expect(plan.givenUp == 0) }
            #expect(plan.givenUp == 0 || 2 * (free.seams - plan.seams) >= free.seams - goal)
            #expect(plan.stretches.flatMap { Array($0.pages) } == Array(slice))
            for stretch in plan.stretches {
                for page in stretch.pages where fixed.contains(page) {
                    #expect(Territory(records.backing(page), page: page) == stretch.territory)
                }
            }
            // Carried out, it is what was planned. What was given up, or was never touched, may go anywhere from then on,
            // so there may be a little more to gain, for nothing; but soon there is not.
            carryOut(plan, records)
            var seams = plan.seams
            for turn in 0..<20 {
                let after = Terrain(records, slice) { fixed.contains($0) }
                #expect(after.seams == seams)
                let next = Arrangement.best(after, goal: goal, allowance: seams <= goal ? 1000 : 0)
                #expect(next.givenUp == 0 && next.seams <= seams)
                if next.seams == seams { break }
                #expect(turn < 19)
                carryOut(next, records)
                seams = next.seams
            }
        }
    }

    private func carryOut(_ plan: Arrangement, _ records: GuestPages) {
        for stretch in plan.stretches {
            for page in stretch.pages
            where Territory(records.backing(page), page: page) != stretch.territory {
                let backing = stretch.territory.backing(of: page)
                if backing == .home {
                    records.rehome(page..<page + 1) { _ in false }
                } else {
                    _ = records.absorb(page..<page + 1, over: backing)
                }
            }
        }
    }

    @Test func frameNumbersEndSomewhere() throws {
        for room in [0, 2, 3] {
            let records = try GuestPages.testing(6)
            records.back(0..<3, .frame(FrameLocation(FrameLocation.end - 3 - UInt64(room))))
            for page in 3..<6 { records.touch(page) }
            let plan = Arrangement(Terrain(records, 0..<6) { _ in false }, giveUpCost: Arrangement.impossible)
            #expect(plan.seams == (room < 3 ? 1 : 0), "room for \(room) more")
        }
    }
}
