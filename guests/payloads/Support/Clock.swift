import Machine

/// Gives the processor back to the host; other vCPUs run on.
public func sleep(microseconds: UInt32) {
    machine_out32(Port.sleep, microseconds)
}

/// The host's monotonic clock, in nanoseconds.
public func clockNanoseconds() -> UInt64 {
    let low = machine_in32(Port.clockLow)
    return UInt64(machine_in32(Port.clockHigh)) << 32 | UInt64(low)
}

/// Time since some moment by the host's clock. A guest that goes on elsewhere (from a snapshot) may meet an
/// earlier clock: then it counts from there.
public struct Stopwatch {
    private var start = clockNanoseconds()

    public init() {}

    public mutating func hasPassed(seconds: UInt64) -> Bool {
        let now = clockNanoseconds()
        if now < start { start = now }
        return now - start >= seconds * 1_000_000_000
    }
}

/// The time-stamp counter as a clock: no exit to the host, hence the measure of short and frequent things.
public struct TickClock {
    /// In Hz.
    public let frequency: UInt64

    /// Takes the frequency from the boot information, or else measures it for 50 ms against the host's clock.
    public init(_ guest: Guest) {
        let stated = guest.statedTSCFrequency
        frequency = stated >= 1_000_000 ? stated : TickClock.measuredFrequency()
    }

    public static var now: UInt64 { machine_ordered_tsc() }

    public func nanoseconds(_ ticks: UInt64) -> UInt64 {
        ticks < 1 << 40 ? ticks * 1_000_000 / (frequency / 1000) : ticks / (frequency / 1000) * 1_000_000
    }

    public func ticks(milliseconds: UInt64) -> UInt64 {
        milliseconds * (frequency / 1000)
    }

    private static func measuredFrequency() -> UInt64 {
        let start = narrowestReading()
        sleep(microseconds: 50_000)
        let end = narrowestReading()
        let microseconds = max(1, (end.nanoseconds &- start.nanoseconds) / 1000)
        return max(1_000_000, (end.ticks &- start.ticks) &* 1_000_000 / microseconds)
    }

    /// Both clocks at one moment: of several readings the one that the host disturbed least.
    private static func narrowestReading() -> (ticks: UInt64, nanoseconds: UInt64) {
        var best: (ticks: UInt64, nanoseconds: UInt64) = (0, 0)
        var narrowest = UInt64.max
        for _ in 0..<8 {
            let before = now
            let nanoseconds = clockNanoseconds()
            let width = now &- before
            if width < narrowest {
                narrowest = width
                best = (before + width / 2, nanoseconds)
            }
        }
        return best
    }
}
