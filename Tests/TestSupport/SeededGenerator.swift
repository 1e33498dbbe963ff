import Foundation

/// A pseudo-random generator (SplitMix64) whose seed is printed, so that a failure can be repeated:
/// `MINGLE_TEST_SEED=N swift test --filter NAME`.
public struct SeededGenerator: RandomNumberGenerator, Sendable {
    private var state: UInt64
    public let seed: UInt64

    /// - Parameter purpose: printed with the seed.
    public init(for purpose: String) {
        seed = environmentNumber("MINGLE_TEST_SEED") ?? UInt64.random(in: 0...UInt64.max)
        state = seed
        print("\(purpose): MINGLE_TEST_SEED=\(seed)")
    }

    /// A generator with a seed of one's own, for one of several threads.
    public init(seed: UInt64) {
        self.seed = seed
        state = seed
    }

    public mutating func next() -> UInt64 {
        state &+= 0x9E37_79B9_7F4A_7C15
        var mixed = state
        mixed = (mixed ^ (mixed >> 30)) &* 0xBF58_476D_1CE4_E5B9
        mixed = (mixed ^ (mixed >> 27)) &* 0x94D0_49BB_1331_11EB
        return mixed ^ (mixed >> 31)
    }

    /// True once in `count` times.
    public mutating func oneIn(_ count: Int) -> Bool { Int.random(in: 0..<count, using: &self) == 0 }
    /// A byte.
    public mutating func byte() -> UInt8 { UInt8(truncatingIfNeeded: next()) }
}

/// A decimal number of the environment, nil when unset.
public func environmentNumber(_ name: String) -> UInt64? {
    ProcessInfo.processInfo.environment[name].flatMap { UInt64($0) }
}
