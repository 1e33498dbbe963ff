import TestSupport
import Testing

@testable import Sharing

@Suite struct PageRunsTests {
    @Test func bitsComeInOrder() {
        var random = SeededGenerator(for: "bits")
        for bits in [0, 1, 1 << 63, .max]
            + (0..<100).map({ _ in UInt64.random(in: 0...UInt64.max, using: &random) })
        {
            #expect(Array(BitNumbers(bits)) == (0..<64).filter { bits >> UInt64($0) & 1 == 1 })
        }
    }

    @Test func runsCoverJustTheirPages() {
        var random = SeededGenerator(for: "runs")
        for _ in 0..<200 {
            let pages = (0..<60).filter { _ in !random.oneIn(3) }
            let limit = Int.random(in: 1...10, using: &random)
            let found = runs(of: pages, limit: limit)
            #expect(found.flatMap { Array($0) } == pages)
            #expect(found.allSatisfy { 1...limit ~= $0.count })
            // As few as the limit allows.
            for (left, right) in zip(found, found.dropFirst()) {
                #expect(left.count == limit || left.upperBound < right.lowerBound)
            }
        }
    }
}
