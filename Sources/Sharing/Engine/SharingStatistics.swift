/// Counters of one guest's engine, with KSM's names where they exist; pages unless said otherwise.
public struct SharingStatistics: Equatable, Sendable {
    /// Passes over what changed (KSM: full_scans).
    public var fullScans = 0
    public var pagesHashed = 0
    /// Mappings of frames made, over all time.
    public var pagesMerged = 0
    /// Now mapped to frames, unwritten.
    public var pagesMapped = 0
    /// Now backed by the kernel's zero page.
    public var pagesZero = 0
    /// Private copies taken since the start: writes to merged pages.
    public var pagesUnsharedTotal = 0
    /// Seen once by everybody (KSM: pages_unshared).
    public var pagesUnshared = 0
    /// Reported as written and left alone for now, most because they are written too often (KSM: pages_volatile).
    public var pagesVolatile = 0
    /// Comparisons in a window that found the page changed.
    public var mismatches = 0
    /// Pages taken home again.
    public var pagesRehomed = 0
    /// Mappings of guest memory in this process.
    public var mappings = 0
    /// Pauses in which mappings were arranged anew, since the start.
    public var arrangements = 0
    /// Times that work was put off because the heap had no room in reserve.
    public var putOffNoMemory = 0
    /// Stretches that were not mapped anew, for now: no mapping was left for them, or the kernel refused it.
    public var putOffNoMapping = 0
    /// Bytes of bookkeeping in this process.
    public var metadataBytes = 0
    /// CPU time of the sharing thread, nanoseconds.
    public var cpuNanoseconds: UInt64 = 0
    /// What sharing took of the guest's time, and the time that its vCPUs wanted, nanoseconds; and the ratio of late.
    public var lostNanoseconds: UInt64 = 0
    public var wantedNanoseconds: UInt64 = 0
    public var recentLoss: Double = 0
    public var windows = LatencyHistogram()
    /// Whether a store is connected.
    public var hasStore = false
    public init() {}
}

/// Latencies by powers of the fourth root of two; nanoseconds. Keeps quantiles within 20 %.
public struct LatencyHistogram: Equatable, Sendable {
    private var buckets = [UInt32](repeating: 0, count: 160)
    public private(set) var count = 0
    public private(set) var maximum: UInt64 = 0
    public init() {}

    public mutating func record(_ nanoseconds: UInt64) {
        buckets[Self.bucket(nanoseconds)] += 1
        count += 1
        maximum = max(maximum, nanoseconds)
    }

    /// The upper bound of the bucket that holds the quantile; 0 when empty.
    public func quantile(_ fraction: Double) -> UInt64 {
        var left = Int((Double(count) * fraction).rounded(.up))
        for (index, value) in buckets.enumerated() {
            left -= Int(value)
            if left <= 0, count > 0 { return min(maximum, Self.upperBound(index)) }
        }
        return maximum
    }

    /// Four buckets to a doubling: the leading bit and the two behind it.
    private static func bucket(_ value: UInt64) -> Int {
        guard value >= 4 else { return Int(value) }
        let exponent = 63 - value.leadingZeroBitCount
        let quarter = Int(truncatingIfNeeded: value >> UInt64(exponent - 2)) & 3
        return min((exponent - 1) * 4 + quarter, 159)
    }

    private static func upperBound(_ index: Int) -> UInt64 {
        guard index >= 4 else { return UInt64(index) }
        let exponent = index / 4 + 1
        return (UInt64(4 + index % 4 + 1) << UInt64(exponent - 2)) - 1
    }
}
