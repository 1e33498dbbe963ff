import GuestMemory
import TestSupport
import Testing

@testable import Sharing

/// The cheapest arrangement, against all there are.
@Suite struct ArrangementTests {
    /// What a page is, as the planner sees it.
    private func randomRecords(_ count: Int, _ random: inout SeededGenerator) throws -> PageRecords {
        let records = try PageRecords(count: count)
        var page = 0
        while page < count {
            let end = min(count, page + Int.random(in: 1...3, using: &random))
            let backing: PageBacking = [
                .home, .zero, .frame(FrameLocation(UInt64(1000 + page))),
                .frame(FrameLocation(UInt64(5000 + page))),
            ].randomElement(using: &random)!
            records.setBacking(page..<end, backing)
            for page in page..<end {
                let kinds: [PageRecords.Kind] =
                    switch backing {
                    case .home: [.home, .untouched]
                    case .zero: [.zero, .unshared]
                    case .frame: [.mapped, .unshared]
                    }
                records.setKind(page, kinds.randomElement(using: &random)!)
            }
            page = end
        }
        return records
    }

    private func cost(
        _ records: PageRecords, _ territories: [Territory], price: Int, giveUp: Int, fixed: Set<Int>
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
            case .home, .unshared: total += 1
            case .untouched where territory == .zero: total += 1
            default: total += giveUp
            }
        }
        return total
    }

    @Test func noArrangementIsCheaper() throws {
        var random = SeededGenerator(for: "noArrangementIsCheaper")
        let choices: [Territory] = [.home, .zero, .frames(1000), .frames(5000)]
        for _ in 0..<40 {
            let count = Int.random(in: 1...7, using: &random)
            let records = try randomRecords(count, &random)
            let price = [3, 32, 64, 128].randomElement(using: &random)!
            let giveUp = [64, 1 << 30].randomElement(using: &random)!
            let fixed = Set((0..<count).filter { _ in random.oneIn(6) })
            let plan = Arrangement(records, 0..<count, price: price, giveUpCost: giveUp) {
                fixed.contains($0)
            }
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
            #expect(plan.seamsBefore == records.seams)
        }
    }

    @Test func manyNumberingsAreFollowedToo() throws {
        // Each stretch of frames has its own numbering: more than the planner keeps in mind at a time.
        let records = try PageRecords(count: 64)
        for stretch in 0..<16 {
            let pages = stretch * 4..<stretch * 4 + 4
            records.setBacking(pages, .frame(FrameLocation(UInt64(10_000 * (stretch + 1)))))
            for page in pages { records.setKind(page, page % 4 == 1 ? .unshared : .mapped) }
        }
        let plan = Arrangement(records, 0..<64, price: 64, giveUpCost: 1 << 30) { _ in false }
        #expect(plan.stretches.count == 16)
        #expect(plan.givenUp == 0)
        #expect(
            plan.stretches.allSatisfy {
                $0.territory == Territory(records.backing($0.pages.lowerBound), page: $0.pages.lowerBound)
            })
    }

    @Test func pricesAreLoweredUntilLittleIsGivenUp() throws {
        let records = try PageRecords(count: 100)
        // Zeros every other page among the guest's own: a mapping each, or nothing saved.
        for page in 0..<100 {
            records.setKind(page, page % 2 == 0 ? .zero : .home)
            if page % 2 == 0 { records.setBacking(page..<page + 1, .zero) }
        }
        let plan = Arrangement.best(records, 0..<100, prices: [64, 32, 64], allowance: 0) { _ in false }
        #expect(plan.givenUp == 0)
        // The guest's own pages become private copies over one mapping of zeros.
        #expect(plan.seamsBefore == 99)
        #expect(plan.seamsAfter == 0)
    }
}
