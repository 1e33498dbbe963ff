/// How short of memory the host and our control groups are: pure arithmetic on readings that others take.
///
/// ```
///           stalls, little left          all stalled, reserve touched
///   none ------------------------> some ------------------------------> full      at once
///        <------------------------      <------------------------------           after five calm seconds
/// ```
/// Apart from that, memory is *exhausted* from the moment when no more than the reserve is left, swap included, until twice
/// as much has been there for two seconds.
public struct MemoryPressure: Sendable {
    public enum Level: String, Comparable, Sendable {
        case none, some, full

        private var rank: Int { self == .none ? 0 : self == .some ? 1 : 2 }
        public static func < (left: Level, right: Level) -> Bool { left.rank < right.rank }
    }

    /// What was seen at one moment.
    public struct Reading: Sendable {
        /// Monotonic nanoseconds.
        public var time: UInt64
        /// Since the start of all; nil where the kernel does not count them.
        public var stalls: MemoryStalls?
        public var bounds: [MemoryBound]

        public init(time: UInt64, stalls: MemoryStalls?, bounds: [MemoryBound]) {
            (self.time, self.stalls, self.bounds) = (time, stalls, bounds)
        }
    }

    /// Nanoseconds for which a lower level must be seen before it is believed.
    static let calm: UInt64 = 5_000_000_000
    static let relief: UInt64 = 2_000_000_000
    /// Share of the time between two readings in which somebody, or everybody, waited for memory.
    static let stalledShare = 0.1
    /// Stalls are compared over no less than this, nanoseconds.
    static let shortestSpan: UInt64 = 100_000_000

    public private(set) var level = Level.none
    public private(set) var isExhausted = false
    /// Of what is left, so little that no time can be lost.
    public private(set) var isCritical = false
    /// The bound of which the least is left, in terms of its reserve.
    public private(set) var tightest: MemoryBound?
    private var compared: Reading?
    private var stalled = Level.none
    /// Since when, and to which level at least, it seems to go down.
    private var calmSince: UInt64?
    private var calmLevel = Level.none
    private var reliefSince: UInt64?

    public init() {}

    public mutating func take(_ reading: Reading) {
        compare(reading)
        tightest = reading.bounds.min { Self.reserves($0) < Self.reserves($1) }
        let asked = max(stalled, tightest.map(Self.level) ?? .none)
        if asked >= level {
            level = asked
            calmSince = nil
        } else {
            calmLevel = calmSince == nil ? asked : max(calmLevel, asked)
            let since = calmSince ?? reading.time
            calmSince = since
            if reading.time - since >= Self.calm {
                level = calmLevel
                calmSince = nil
            }
        }
        noteExhaustion(reading)
    }

    /// Stalls and limits that were hit since the last comparison.
    private mutating func compare(_ reading: Reading) {
        guard let last = compared else {
            compared = reading
            return
        }
        let span = reading.time - last.time
        guard span >= Self.shortestSpan else { return }
        compared = reading
        stalled = .none
        if Self.hits(reading) > Self.hits(last) { stalled = .some }
        guard let now = reading.stalls, let before = last.stalls else { return }
        func share(_ from: UInt64, _ to: UInt64) -> Double {
            Double(to - min(from, to)) * 1000 / Double(span)
        }
        if share(before.someMicroseconds, now.someMicroseconds) >= Self.stalledShare { stalled = .some }
        if share(before.fullMicroseconds, now.fullMicroseconds) >= Self.stalledShare { stalled = .full }
    }

    private static func hits(_ reading: Reading) -> UInt64 {
        reading.bounds.reduce(0) { $0 &+ $1.limitHits }
    }

    /// How many times its reserve is left of a bound.
    private static func reserves(_ bound: MemoryBound, swap: UInt64 = 0) -> Double {
        (Double(bound.availableBytes) + Double(swap)) / Double(max(bound.reserveBytes, 1))
    }

    private static func level(_ bound: MemoryBound) -> Level {
        let left = reserves(bound)
        return left < 1 ? .full : left < 2 ? .some : .none
    }

    private mutating func noteExhaustion(_ reading: Reading) {
        let left = reading.bounds.map { Self.reserves($0, swap: $0.swapFreeBytes) }.min() ?? .infinity
        isCritical = left < 0.25
        if left < 1 {
            isExhausted = true
            reliefSince = nil
        } else if isExhausted, left >= 2 {
            let since = reliefSince ?? reading.time
            reliefSince = since
            if reading.time - since >= Self.relief { isExhausted = false }
        } else {
            reliefSince = nil
        }
    }

    /// Whether merging stops for now (docs/decisions/11-memory-pressure.md): everybody waits for memory, and what the
    /// guest's writes may claim back could not be had.
    /// - Parameters:
    ///   - owedBytes: what this guest shares.
    ///   - overcommits: it was started though the worst case did not fit.
    public func holdsMerges(owedBytes: UInt64, overcommits: Bool) -> Bool {
        guard level == .full else { return false }
        return overcommits || owedBytes > (tightest?.availableBytes ?? .max)
    }

    /// When to look again at the latest, in nanoseconds.
    /// - Parameter overcommits: it must not be missed when memory runs out.
    public func interval(overcommits: Bool) -> UInt64 {
        let longest: UInt64 = 1_000_000_000
        guard overcommits, let tightest else { return longest }
        let left = tightest.availableBytes - min(tightest.availableBytes, tightest.reserveBytes)
        // Guests together take up to four bytes a nanosecond.
        return min(max(left / 4, 20_000_000), longest)
    }
}

/// Whether an overcommitted guest has to stand still: while memory is exhausted, if it is among those that take more, or if
/// next to nothing is left.
public struct MemoryPause: Sendable {
    /// What a guest may take while memory is exhausted, bytes.
    package static let tolerance: UInt64 = 1 << 20

    public private(set) var isPaused = false
    /// What the guest held when memory was last not exhausted.
    private var heldBefore: UInt64?

    public init() {}

    /// - Parameter heldBytes: what this guest and its VMM hold that no other does.
    public mutating func update(_ pressure: MemoryPressure, heldBytes: UInt64) {
        guard pressure.isExhausted else {
            heldBefore = heldBytes
            isPaused = false
            return
        }
        let before = heldBefore ?? heldBytes
        heldBefore = before
        if pressure.isCritical || heldBytes > before + Self.tolerance { isPaused = true }
    }
}
