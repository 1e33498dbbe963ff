/// Pages by their number, over both ranges of memory.
public struct PageSet {
    private let lowStart: UInt64
    private let lowCount: UInt64
    private let highStart: UInt64
    public let count: UInt64

    init(low: Range<UInt64>, high: Range<UInt64>) {
        lowStart = low.lowerBound
        lowCount = (low.upperBound - low.lowerBound) / Guest.pageSize
        highStart = high.lowerBound
        count = lowCount + (high.upperBound - high.lowerBound) / Guest.pageSize
    }

    /// Where page `number` is (GPA).
    public func address(of number: UInt64) -> UInt64 {
        precondition(number < count)
        return number < lowCount
            ? lowStart + number * Guest.pageSize : highStart + (number - lowCount) * Guest.pageSize
    }
}

/// A fixed permutation of `0..<count` that tears neighbours apart.
public struct Scatter {
    private let count: UInt64
    private let step: UInt64

    public init(count: UInt64) {
        self.count = max(1, count)
        var step = max(1, self.count * 618_034 / 1_000_000)
        while Scatter.greatestCommonDivisor(step, self.count) != 1 { step += 1 }
        self.step = step
    }

    /// `salt` picks one of `count` permutations, each a rotation of the others.
    public func position(of number: UInt64, salt: UInt64 = 0) -> UInt64 {
        (number * step + salt % count) % count
    }

    private static func greatestCommonDivisor(_ first: UInt64, _ second: UInt64) -> UInt64 {
        var (larger, smaller) = (first, second)
        while smaller != 0 { (larger, smaller) = (smaller, larger % smaller) }
        return larger
    }
}
