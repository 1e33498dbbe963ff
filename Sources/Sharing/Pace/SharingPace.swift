/// When the sharing thread works next: pure arithmetic on the times that it is given.
struct SharingPace {
    /// Seconds of CPU time that may be saved up, so that a guest that has just started is shared at full speed.
    static let burst: Double = 10
    /// What a pass reports that left work behind.
    static let unfinished = Int.max
    /// From so much activity on, the next pass follows after the shortest interval.
    static let quick = 257

    private var credit = burst
    private var interval: UInt64 = 0
    private var lastWall: UInt64
    private var lastCPU: UInt64

    /// - Parameters: the monotonic clock and the thread's CPU time, nanoseconds, as in ``rest(after:wall:cpu:policy:)``.
    init(wall: UInt64, cpu: UInt64) {
        lastWall = wall
        lastCPU = cpu
    }

    /// Nanoseconds to wait after a pass: longer while nothing changes, and until a budget that is used up is earned again.
    mutating func rest(after activity: Int, wall: UInt64, cpu: UInt64, policy: SharingPolicy) -> UInt64 {
        credit = min(Self.burst, credit + Double(wall - lastWall) / 1e9 * policy.cpuShare)
        credit -= Double(cpu - lastCPU) / 1e9
        (lastWall, lastCPU) = (wall, cpu)
        interval =
            activity >= Self.quick
            ? policy.shortestInterval
            : min(max(interval * 5 / 4, policy.shortestInterval), policy.longestInterval)
        let debt = credit < 0 ? UInt64(min(-credit / max(policy.cpuShare, 0.001), 60) * 1e9) : 0
        return activity == Self.unfinished && debt == 0 ? 0 : max(interval, debt)
    }

    /// A pass that was asked for follows at once, and the next ones soon.
    mutating func hurry() { interval = 0 }
}
