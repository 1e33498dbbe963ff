/// Counts of ticks, in steps of a sixteenth of their power of two. Lives on the stack: recording causes no fault.
struct Latencies {
    private var buckets = [1024 of UInt32](repeating: 0)
    private(set) var count: UInt64 = 0
    private(set) var maximum: UInt64 = 0

    mutating func record(_ ticks: UInt64) {
        buckets[Latencies.bucket(ticks)] += 1
        count += 1
        if ticks > maximum { maximum = ticks }
    }

    /// The upper bound of the bucket that holds the quantile, given in thousandths; 0 if nothing was recorded.
    func quantile(thousandths: UInt64) -> UInt64 {
        let wanted = max(1, (count * thousandths + 999) / 1000)
        var seen: UInt64 = 0
        for index in 0..<1024 {
            seen += UInt64(buckets[index])
            if seen >= wanted { return min(maximum, Latencies.upperBound(index)) }
        }
        return maximum
    }

    /// The leading bit and the four behind it.
    private static func bucket(_ value: UInt64) -> Int {
        if value < 16 { return Int(value) }
        let exponent = 63 - UInt64(value.leadingZeroBitCount)
        return Int((exponent - 3) * 16 + (value >> (exponent - 4)) & 15)
    }

    private static func upperBound(_ index: Int) -> UInt64 {
        if index < 16 { return UInt64(index) }
        let exponent = UInt64(index / 16 + 3)
        return (16 + UInt64(index % 16) + 1) << (exponent - 4) - 1
    }
}
