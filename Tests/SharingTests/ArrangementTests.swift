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
        _ records: GuestPages, _ targets: [MappingTarget], _ price: MemoryPrice, fixed: Set<Int>
    ) -> Int? {
        var total = 0
        var asked: [MappingTarget] = [.home, .zero]
        for (page, target) in targets.enumerated() {
            // Frames are thought of from the first page on that has some.
            asked.append(MappingTarget(records.backing(page), page: page))
            if !asked.contains(target) { return nil }
            if page > 0, targets[page - 1] != target { total += price.mapping }
            if target == MappingTarget(records.backing(page), page: page) { continue }
            if fixed.contains(page) { return nil }
            switch records.kind(page) {
            case .home, .unshared: total += MemoryPrice.move
            case .untouched where target == .zero: total += MemoryPrice.move
            default: total += MemoryPrice.page
            }
        }
        return total
    }

    private func givenUp(_ records: GuestPages, _ targets: [MappingTarget]) -> Int {
        targets.indices.count { page in
            if targets[page] == MappingTarget(records.backing(page), page: page) { return false }
            return switch records.kind(page) {
            case .home, .unshared: false
            case .untouched: targets[page] != .zero
            case .mapped, .zero: true
            }
        }
    }

    @Test func noArrangementIsCheaper() throws {
        var random = SeededGenerator(for: "noArrangementIsCheaper")
        let choices: [MappingTarget] = [.home, .zero, .frames(1000), .frames(5000)]
        for _ in 0..<40 {
            let count = Int.random(in: 1...7, using: &random)
            let records = try randomRecords(count, &random)
            let price = MemoryPrice(mapping: [10, 272, 2047, 2049, 20_000].randomElement(using: &random)!)
            let fixed = Set((0..<count).filter { _ in random.oneIn(6) })
            let layout = PageLayout(records, 0..<count) { fixed.contains($0) }
            let plan = Arrangement(layout, price)
            let found = plan.stretches.flatMap { stretch in stretch.pages.map { _ in stretch.target } }
            try #require(found.count == count)
            let mine = try #require(cost(records, found, price, fixed: fixed))
            var least = Int.max
            for code in 0..<Int(1) << (2 * count) {
                let tried = (0..<count).map { choices[code >> (2 * $0) & 3] }
                if let cost = cost(records, tried, price, fixed: fixed) {
                    least = min(least, cost)
                }
            }
            #expect(mine == least, "\(records) \(price)")
            #expect(layout.boundaries == records.boundaries)
            #expect(plan.boundaries == zip(found, found.dropFirst()).count { $0 != $1 })
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
        let plan = Arrangement(PageLayout(records, 0..<64) { _ in false }, MemoryPrice())
        #expect(plan.stretches.count == 16)
        #expect(plan.givenUp == 0)
        #expect(
            plan.stretches.allSatisfy {
                $0.target == MappingTarget(records.backing($0.pages.lowerBound), page: $0.pages.lowerBound)
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

    /// A lone page costs two mappings: its sharing is given up when those cost more than a page, not before.
    @Test func sharingIsGivenUpForDearerMappingsAlone() throws {
        let records = try fragmented([1, 3, 1, 2, 1, 6])
        let layout = PageLayout(records, 0..<records.count) { _ in false }
        #expect(layout.boundaries == 12)
        let halfPage = MemoryPrice.page / 2
        let cases = [
            (MemoryPrice.leastMapping, 0, 12), (halfPage - 1, 0, 12), (halfPage + 1, 3, 6),
            (2 * halfPage + 1, 5, 4), (3 * halfPage + 1, 8, 2), (6 * halfPage + 1, 14, 0),
            (MemoryPrice.mostMapping, 14, 0),
        ]
        for (mapping, givenUp, boundaries) in cases {
            let plan = Arrangement(layout, MemoryPrice(mapping: mapping))
            #expect(plan.givenUp == givenUp && plan.boundaries == boundaries, "\(mapping) bytes a mapping")
        }
    }

    @Test func mappingsGetDearerAsTheyRunOut() {
        #expect(MemoryPrice(mappings: 1, of: 57_000) == MemoryPrice())
        #expect(MemoryPrice(mappings: 42_000, of: 57_000) == MemoryPrice())
        var last = 0
        for mappings in stride(from: 42_000, through: 70_000, by: 500) {
            let price = MemoryPrice(mappings: mappings, of: 57_000).mapping
            #expect(price >= last)
            last = price
        }
        #expect(last == MemoryPrice.mostMapping)
        // None may be had: what was counted when the kernel refused one.
        #expect(MemoryPrice(mappings: 5, of: 0).mapping == MemoryPrice.mostMapping)
    }

    /// The guest's own pages become private copies over one mapping of zeros.
    @Test func pagesOfTheGuestsOwnGoWhereverTheyAreWanted() throws {
        let records = try GuestPages.testing(100)
        for page in 0..<100 {
            if page % 2 == 0 { records.back(page..<page + 1, .zero) } else { records.touch(page) }
        }
        let plan = Arrangement(PageLayout(records, 0..<100) { _ in false }, MemoryPrice())
        #expect(plan.givenUp == 0 && plan.boundaries == 0)
    }

    /// Whatever it is given: never more boundaries than before, nothing given up while mappings are no concern; and what was arranged
    /// once stays as it is.
    @Test func plansKeepTheirPromises() throws {
        var random = SeededGenerator(for: "plansKeepTheirPromises")
        for _ in 0..<200 {
            let count = Int.random(in: 1...300, using: &random)
            let records = try randomRecords(count, &random)
            let slice = Int.random(in: 0..<count, using: &random)..<count
            let fixed = Set((0..<count).filter { _ in random.oneIn(20) })
            let layout = PageLayout(records, slice) { fixed.contains($0) }
            let price = MemoryPrice(mapping: Int.random(in: 272...12_000, using: &random))
            let plan = Arrangement(layout, price)
            let free = Arrangement(layout, MemoryPrice())
            // A page saves two mappings at most.
            #expect(
                free.givenUp == 0 && free.boundaries <= layout.boundaries
                    && plan.boundaries <= free.boundaries)
            #expect(plan.givenUp * MemoryPrice.page <= (layout.boundaries - plan.boundaries) * price.mapping)
            #expect(plan.stretches.flatMap { Array($0.pages) } == Array(slice))
            for stretch in plan.stretches {
                for page in stretch.pages where fixed.contains(page) {
                    #expect(MappingTarget(records.backing(page), page: page) == stretch.target)
                }
            }
            // Carried out, it is what was planned. What was given up, or was never touched, may go anywhere from then on,
            // so there may be a little more to gain, for nothing; but soon there is not.
            carryOut(plan, records)
            var boundaries = plan.boundaries
            for turn in 0..<20 {
                let after = PageLayout(records, slice) { fixed.contains($0) }
                #expect(after.boundaries == boundaries)
                let next = Arrangement(after, price)
                #expect(next.boundaries <= boundaries)
                if next.boundaries == boundaries { break }
                #expect(turn < 19)
                carryOut(next, records)
                boundaries = next.boundaries
            }
        }
    }

    private func carryOut(_ plan: Arrangement, _ records: GuestPages) {
        for stretch in plan.stretches {
            for page in stretch.pages
            where MappingTarget(records.backing(page), page: page) != stretch.target {
                let backing = stretch.target.backing(of: page)
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
            let plan = Arrangement(PageLayout(records, 0..<6) { _ in false }, MemoryPrice())
            #expect(plan.boundaries == (room < 3 ? 1 : 0), "room for \(room) more")
        }
    }
}
