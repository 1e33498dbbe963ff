import FrameStore

/// When the sharing thread works next: pure arithmetic on the times that it is given.
///
/// While no vCPU of any guest waits for a CPU, each thread has an income of its own and can save up. While some do, all threads
/// together have one income, and nothing that was saved is spent.
struct SharingPace {
    /// Seconds of CPU time that may be saved up, so that a guest that has just started is shared at full speed.
    static let burst: Double = 10
    /// Seconds of the common income that may be saved up.
    static let scarceBurst = 0.05
    /// What a pass reports that left work behind.
    static let unfinished = Int.max
    /// From so much activity on, the next pass follows after the shortest interval.
    static let quick = 257

    private var credit = burst
    private var scarceCredit = scarceBurst
    private var interval: UInt64 = 0
    private var lastWall: UInt64
    private var lastCPU: UInt64
    private var debt: UInt64 = 0

    /// - Parameters: the monotonic clock and the CPU time spent, nanoseconds, as in ``pay(wall:cpu:policy:market:)``.
    init(wall: UInt64, cpu: UInt64) {
        lastWall = wall
        lastCPU = cpu
    }

    /// Takes note of the time.
    /// - Parameters:
    ///   - wall: the monotonic clock, nanoseconds.
    ///   - cpu: CPU time that this guest's sharing has taken since the start, the broker's part included; nanoseconds.
    mutating func pay(wall: UInt64, cpu: UInt64, policy: SharingPolicy, market: StoreMarket) {
        let passed = Double(wall - lastWall) / 1e9
        let spent = Double(cpu - min(cpu, lastCPU)) / 1e9
        (lastWall, lastCPU) = (wall, max(cpu, lastCPU))
        credit = min(Self.burst, credit + passed * policy.cpuShare) - spent
        let share = policy.scarceShare / Double(max(market.sharers, 1))
        scarceCredit = min(Self.scarceBurst, scarceCredit + passed * share)
        // What was spent in plenty is not owed in need.
        if market.isScarce { scarceCredit -= spent }
        let (owed, income) = market.isScarce ? (scarceCredit, share) : (credit, policy.cpuShare)
        debt = owed < 0 ? UInt64(min(-owed / max(income, 0.0001), 60) * 1e9) : 0
    }

    /// Nanoseconds until a budget that is used up is earned again, at the present income.
    var delay: UInt64 { debt }

    /// Nanoseconds to wait after a pass: longer while nothing changes.
    mutating func rest(after activity: Int, policy: SharingPolicy) -> UInt64 {
        interval =
            activity >= Self.quick
            ? policy.shortestInterval
            : min(max(interval * 5 / 4, policy.shortestInterval), policy.longestInterval)
        return activity == Self.unfinished && debt == 0 ? 0 : max(interval, debt)
    }

    /// A pass that was asked for follows at once, and the next ones soon.
    mutating func hurry() { interval = 0 }
}
