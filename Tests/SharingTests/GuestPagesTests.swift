import FrameStore
import TestSupport
import Testing

@testable import Sharing

extension GuestPages {
    /// One of so many pages, whose journal nobody reads.
    static func testing(_ count: Int) throws -> GuestPages { try GuestPages(count: count, EngineJournal()) }

    /// Gives pages a backing by the verb for it.
    func back(_ pages: Range<Int>, _ first: PageBacking) {
        switch first {
        case .home: rehome(pages) { _ in true }
        case .zero: _ = zero(pages)
        case .frame(let location): _ = map(pages, to: location, keeping: [])
        }
    }
}

/// The guest's half of the reverse map, against a slow and obvious counterpart.
@Suite struct GuestPagesTests {
    /// What is true of a page.
    private struct Page: Equatable {
        var kind = GuestPages.Kind.untouched
        var backing = PageBacking.home
        var isKnown = false, isOrphan = false, isGivenUp = false
        var isMerged: Bool { kind == .mapped || kind == .zero }
    }

    /// Plain arrays.
    private struct Plain {
        var pages: [Page]
        var removals: Set<Int> = []

        mutating func forget(_ page: Int) {
            if pages[page].isKnown { removals.insert(page) }
            pages[page].isKnown = false
        }
        mutating func set(_ page: Int, _ kind: GuestPages.Kind, _ backing: PageBacking) {
            pages[page].kind = kind
            pages[page].backing = backing
            (pages[page].isGivenUp, pages[page].isOrphan) = (false, false)
        }
        func runsAtHome(_ range: Range<Int>) -> [Int] { range.filter { pages[$0].backing == .home } }

        var boundaries: Int {
            zip(pages, pages.dropFirst()).count { left, right in
                switch (left.backing, right.backing) {
                case (.home, .home), (.zero, .zero): false
                case (.frame(let left), .frame(let right)): left.value + 1 != right.value
                default: true
                }
            }
        }
    }

    private static func frame(_ pages: Range<Int>, _ random: inout SeededGenerator) -> FrameLocation {
        // Often the place that continues a neighbour.
        FrameLocation(UInt64(pages.lowerBound) + UInt64.random(in: 0...1, using: &random) * 100)
    }

    @Test func verbsAgainstPlainArrays() throws {
        var random = SeededGenerator(for: "verbs")
        for count in [1, 2, 3, 17, 64] {
            let mine = try GuestPages.testing(count)
            var plain = Plain(pages: [Page](repeating: Page(), count: count))
            for step in 0..<3000 {
                let start = Int.random(in: 0..<count, using: &random)
                let range = start..<Int.random(in: start + 1...min(count, start + 9), using: &random)
                let before = mine.boundaries
                let growth = act(mine, &plain, range, &random)
                if let growth { #expect(mine.boundaries == before + growth, "step \(step)") }
                check(mine, plain, "\(count) pages, step \(step)")
            }
        }
    }

    /// One verb on both.
    /// - Returns: what was foretold of the mappings.
    private func act(
        _ mine: GuestPages, _ plain: inout Plain, _ range: Range<Int>, _ random: inout SeededGenerator
    ) -> Int? {
        let page = range.lowerBound
        func hidden(_ found: [Range<Int>]) { #expect(found.flatMap { Array($0) } == plain.runsAtHome(range)) }
        switch Int.random(in: 0..<12, using: &random) {
        case 0:
            if plain.pages[page].kind == .untouched { plain.pages[page].kind = .home }
            mine.touch(page)
        case 1, 2:
            let location = Self.frame(range, &random)
            let kept = range.filter { _ in random.oneIn(3) }
            let growth = mine.growth(range, .frame(location))
            hidden(mine.map(range, to: location, keeping: kept))
            for page in range {
                if kept.contains(page), plain.pages[page].isMerged { plain.forget(page) }
                plain.set(
                    page, kept.contains(page) ? .unshared : .mapped,
                    .frame(location.advanced(by: page - start(range))))
            }
            return growth
        case 3:
            let growth = mine.growth(range, .zero)
            hidden(mine.zero(range))
            for page in range {
                plain.forget(page)
                plain.set(page, .zero, .zero)
            }
            return growth
        case 4 where plain.pages[page].isMerged:
            mine.unshare(page)
            plain.forget(page)
            plain.pages[page].kind = .unshared
            plain.pages[page].isGivenUp = false
        case 5: return absorb(mine, &plain, range, &random)
        case 6:
            let isHole = Bool.random(using: &random)
            mine.rehome(range) { _ in isHole }
            for page in range {
                plain.forget(page)
                plain.set(page, plain.pages[page].kind == .zero && isHole ? .untouched : .home, .home)
            }
        case 7:
            mine.fallHome(range)
            for page in range { plain.set(page, .home, .home) }
        case 8 where plain.pages[page].kind == .home:
            mine.giveUp(page)
            plain.pages[page].isGivenUp = true
        case 8:
            mine.wantAgain(page)
            plain.pages[page].isGivenUp = false
        case 9:
            mine.noteSighting(page)
            (plain.pages[page].isKnown, plain.pages[page].isGivenUp) = (true, false)
        case 10:
            switch Int.random(in: 0...2, using: &random) {
            case 0:
                mine.noteReference(page)
                plain.pages[page].isKnown = true
            case 1:
                mine.noteUnknown(page)
                plain.pages[page].isKnown = false
            default:
                mine.forget(page)
                plain.forget(page)
            }
        case 11 where random.oneIn(20):
            mine.loseStore()
            plain.removals = []
            for page in plain.pages.indices {
                plain.pages[page].isKnown = false
                if case .frame = plain.pages[page].backing { plain.pages[page].isOrphan = true }
            }
        default:
            #expect(mine.removals.popFirst() == plain.removals.min())
            if let first = plain.removals.min() { plain.removals.remove(first) }
        }
        return nil
    }

    private func start(_ range: Range<Int>) -> Int { range.lowerBound }

    private func absorb(
        _ mine: GuestPages, _ plain: inout Plain, _ range: Range<Int>, _ random: inout SeededGenerator
    ) -> Int {
        let target: PageBacking = random.oneIn(2) ? .zero : .frame(Self.frame(range, &random))
        let growth = mine.growth(range, target)
        let hidden = mine.absorb(range, over: target)
        #expect(hidden.flatMap { Array($0) } == plain.runsAtHome(range))
        for page in range {
            let backing = target.advanced(by: page - range.lowerBound)
            if plain.pages[page].backing == backing { continue }
            let givesUp = plain.pages[page].isGivenUp || plain.pages[page].isMerged
            if plain.pages[page].isMerged { plain.forget(page) }
            plain.set(page, .unshared, backing)
            plain.pages[page].isGivenUp = givesUp
        }
        return growth
    }

    private func check(_ mine: GuestPages, _ plain: Plain, _ what: String) {
        let found = (0..<mine.count).map {
            Page(
                kind: mine.kind($0), backing: mine.backing($0), isKnown: mine.isKnown($0),
                isOrphan: mine.isOrphan($0), isGivenUp: mine.isGivenUp($0))
        }
        #expect(found == plain.pages, "\(what)")
        for kind in GuestPages.Kind.allCases {
            #expect(mine.count(of: kind) == plain.pages.count { $0.kind == kind }, "\(what)")
        }
        #expect(mine.boundaries == plain.boundaries, "\(what)")
        #expect(mine.givenUpCount == plain.pages.count { $0.isGivenUp }, "\(what)")
        #expect(mine.orphanCount == plain.pages.count { $0.isOrphan }, "\(what)")
        #expect(
            mine.sightedCount
                == plain.pages.count { $0.isKnown && ($0.kind == .home || $0.kind == .unshared) })
        #expect(mine.removals.count == plain.removals.count, "\(what)")
    }

    @Test func roundsWithoutCompanyAreCounted() throws {
        let pages = try GuestPages.testing(3)
        pages.setSingleMapperRounds(1, 2)
        pages.setSingleMapperRounds(2, 1000)
        #expect(pages.singleMapperCount == 2 && pages.singleMapperRounds(2) == GuestPages.mostRounds)
        pages.setSingleMapperRounds(1, 0)
        #expect(pages.singleMapperCount == 1)
        pages.loseStore()
        #expect(pages.singleMapperCount == 0)
    }

    @Test func volatilePagesWaitTwiceAsLongEachTime() throws {
        let volatility = try Volatility(count: 1)
        for expected: UInt8 in [1, 3, 7, 15, 31, 63, 63] {
            volatility.backOff(0, limit: 6)
            #expect(volatility.wait(0) == expected)
            for _ in 0..<expected { volatility.tick(0) }
            #expect(volatility.wait(0) == 0)
        }
        for _ in 0..<6 { volatility.settle(0) }
        volatility.backOff(0, limit: 6)
        #expect(volatility.wait(0) == 1)
        for _ in 0..<300 { volatility.backOff(0, limit: 255) }
        #expect(volatility.wait(0) == 255)
    }
}
