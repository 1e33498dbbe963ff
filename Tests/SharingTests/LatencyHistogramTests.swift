import TestSupport
import Testing

@testable import Sharing

@Suite struct LatencyHistogramTests {
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
