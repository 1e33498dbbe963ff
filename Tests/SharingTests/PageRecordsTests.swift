@testable import FrameStore
import TestSupport
import Testing

@testable import Sharing

/// The page table of the engine, its pace, and its latencies, against slow and obvious counterparts.
@Suite struct PageRecordsTests {
    private static func seams(_ list: [PageRecords.Backing]) -> Int {
        zip(list, list.dropFirst()).reduce(0) { count, pair in
            switch pair {
            case (.home, .home), (.zero, .zero): count
            case (.frame(let left), .frame(let right)): count + (left.value + 1 == right.value ? 0 : 1)
            default: count + 1
            }
        }
    }

    @Test func seamsAgainstASlowCount() throws {
        var generator = SeededGenerator(for: "seams")
        for count in [1, 2, 3, 17, 64] {
            let records = try PageRecords(count: count)
            var slow = [PageRecords.Backing](repeating: .home, count: count)
            for _ in 0..<2000 {
                let start = Int.random(in: 0..<count, using: &generator)
                let pages = start..<Int.random(in: start + 1...min(count, start + 9), using: &generator)
                let backing: PageRecords.Backing =
                    switch Int.random(in: 0..<4, using: &generator) {
                    case 0: .home
                    case 1: .zero
                    // Often the place that continues a neighbour.
                    default:
                        .frame(
                            FrameLocation(
                                UInt64(pages.lowerBound) + UInt64.random(in: 0...1, using: &generator) * 100))
                    }
                let growth = records.growth(pages, backing)
                let before = records.seams
                records.setBacking(pages, backing)
                for page in pages {
                    if case .frame(let location) = backing {
                        slow[page] = .frame(location.advanced(by: page - pages.lowerBound))
                    } else {
                        slow[page] = backing
                    }
                }
                #expect(records.seams == before + growth)
                #expect(records.seams == Self.seams(slow))
                #expect(pages.allSatisfy { records.backing($0) == slow[$0] })
            }
        }
    }

    @Test func countsOfKindsFollowTheirPages() throws {
        var generator = SeededGenerator(for: "kinds")
        let records = try PageRecords(count: 40)
        let kinds: [PageRecords.Kind] = [.untouched, .home, .mapped, .zero, .unshared]
        for _ in 0..<5000 {
            let page = Int.random(in: 0..<40, using: &generator)
            switch Int.random(in: 0..<5, using: &generator) {
            case 0: records.setKind(page, kinds.randomElement(using: &generator)!)
            case 1: records.setKnown(page, Bool.random(using: &generator))
            case 2: records.setOrphan(page, Bool.random(using: &generator))
            case 3: records.backOff(page, limit: 3)
            default: if records.wait(page) > 0 { records.tick(page) }
            }
        }
        for kind in kinds { #expect(records.count(of: kind) == (0..<40).count { records.kind($0) == kind }) }
        let sighted = (0..<40).count {
            records.isKnown($0) && (records.kind($0) == .home || records.kind($0) == .unshared)
        }
        #expect(records.sightedCount == sighted)
    }

    @Test func volatilePagesWaitTwiceAsLongEachTime() throws {
        let records = try PageRecords(count: 1)
        for expected: UInt8 in [1, 3, 7, 15, 31, 63, 63] {
            records.backOff(0, limit: 6)
            #expect(records.wait(0) == expected)
            for _ in 0..<expected { records.tick(0) }
            #expect(records.wait(0) == 0)
        }
        for _ in 0..<6 { records.settle(0) }
        records.backOff(0, limit: 6)
        #expect(records.wait(0) == 1)
        for _ in 0..<300 { records.backOff(0, limit: 255) }
        #expect(records.wait(0) == 255)
    }

    @Test func quantilesAgainstSortedArrays() {
        var generator = SeededGenerator(for: "quantiles")
        for count in [1, 2, 10, 1000] {
            var histogram = LatencyHistogram()
            var values: [UInt64] = []
            for _ in 0..<count {
                let value = UInt64.random(
                    in: 0...(1 << UInt64.random(in: 0...33, using: &generator)), using: &generator)
                histogram.record(value)
                values.append(value)
            }
            values.sort()
            for fraction in [0.01, 0.25, 0.5, 0.9, 0.99, 1] {
                let exact = values[max(1, Int((Double(count) * fraction).rounded(.up))) - 1]
                let found = histogram.quantile(fraction)
                #expect(
                    found >= exact && Double(found) <= Double(exact) * 1.25 + 1,
                    "\(fraction): \(found) for \(exact)")
            }
            #expect(histogram.maximum == values.last && histogram.count == count)
        }
        #expect(LatencyHistogram().quantile(0.5) == 0)
    }
}
