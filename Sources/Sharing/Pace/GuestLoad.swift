internal import GuestMemory
internal import LinuxHost

/// What a guest's vCPUs did in some interval, by the host's scheduler.
struct GuestLoad: Equatable {
    /// Length of the interval, nanoseconds.
    var nanoseconds: UInt64
    /// vCPUs that ran, and that were ready and waited for a CPU of the host, on average.
    var running: Double
    var waiting: Double

    /// vCPUs that wanted to run, on average.
    var demand: Double { running + waiting }
    /// The guest does next to nothing: what it is made to wait for is nobody's loss. One that hardly runs and sleeps most of the time
    /// does nothing either, however long its timer's ticks wait for a CPU that somebody else has for a moment: on a host with few
    /// CPUs that is the sharing thread itself. (One that is starved never sleeps.)
    var isResting: Bool {
        demand < Self.restingDemand || running < Self.restingDemand && demand < Self.sleeperDemand
    }
    private static let sleeperDemand = 0.5
    /// vCPUs that a guest may want to run on average, and is still said to rest.
    static let restingDemand = 0.1
}

/// Turns times that only grow into loads.
struct LoadMeter {
    /// Shorter intervals say little: the scheduler counts in ticks.
    private static let shortest: UInt64 = 150_000_000

    private var last: (time: UInt64, times: ProcessorTimes)?

    /// - Parameters:
    ///   - time: monotonic nanoseconds.
    ///   - times: sums over the guest's vCPUs.
    /// - Returns: the load since the last answer; nil while that is too short ago.
    mutating func take(_ time: UInt64, _ times: ProcessorTimes) -> GuestLoad? {
        guard let before = last else {
            last = (time, times)
            return nil
        }
        guard time >= before.time + Self.shortest else { return nil }
        last = (time, times)
        let length = Double(time - before.time)
        // A vCPU whose thread has ended takes its times along.
        func share(_ now: UInt64, _ then: UInt64) -> Double { now > then ? Double(now - then) / length : 0 }
        return GuestLoad(
            nanoseconds: time - before.time, running: share(times.running, before.times.running),
            waiting: share(times.waiting, before.times.waiting))
    }
}
