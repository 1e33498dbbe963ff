internal import GuestMemory

/// What the engine did to a guest, counted as it happens.
struct Disturbances: Equatable {
    /// First writes to pages that were watched, or merged.
    var faults = 0
    /// Calls that make the vCPUs leave the guest and forget translations.
    var calls = 0
    /// Time in which all vCPUs were stopped, nanoseconds.
    var stopped: UInt64 = 0
}

/// Nanoseconds that a guest loses by each.
struct LossScale: Equatable {
    var fault: Double
    var call: Double
    var stop: Double

    /// - Parameter load: a call costs those vCPUs that run, a stop those that would.
    init(_ prices: DisturbancePrices, _ load: GuestLoad?) {
        fault = prices.fault
        call = prices.call * (load?.running ?? 1)
        stop = load?.demand ?? 1
    }

    func cost(_ done: Disturbances) -> Double {
        Double(done.faults) * fault + Double(done.calls) * call + Double(done.stopped) * stop
    }
}

/// How much of a guest's time may be lost to sharing: a share of the time in which it wants to run.
struct LossBudget {
    /// Of the guest's own time.
    static let share = 0.02
    /// Seconds of income that can be saved up, and owed.
    private static let savedSeconds: Double = 1
    private static let owedSeconds: Double = 10

    /// Nanoseconds that may still be lost.
    private(set) var credit: Double = 0
    /// Nanoseconds lost and wanted since the start; and of late, over some ten seconds.
    private(set) var lost: Double = 0
    private(set) var wanted: Double = 0
    private(set) var recent: (lost: Double, wanted: Double, passed: Double) = (0, 0, 0)
    private var demand: Double = 1

    /// An interval has passed.
    mutating func earn(_ load: GuestLoad) {
        let time = Double(load.nanoseconds)
        demand = max(load.demand, 0.01)
        let income = Self.share * demand * 1e9
        credit = min(credit + Self.share * load.demand * time, income * Self.savedSeconds)
        credit = max(credit, -income * Self.owedSeconds)
        // A guest that rests has nothing to lose, so it owes nothing.
        if load.isResting { credit = max(credit, 0) }
        wanted += load.demand * time
        let fade = 1 / (1 + time / 1e10)
        recent = (
            recent.lost * fade, recent.wanted * fade + load.demand * time, recent.passed * fade + time
        )
    }

    mutating func pay(_ cost: Double) {
        credit -= cost
        lost += cost
        recent.lost += cost
    }

    /// Nanoseconds until something may be done again at the present load.
    var delay: UInt64 { credit < 0 ? UInt64(min(-credit / (Self.share * demand), 60e9)) : 0 }

    /// Of the time that it wanted of late. A guest that rests counts as one that wants as much as a guest may that rests: of
    /// the moments in which it runs, anything would be much.
    var recentShare: Double {
        let wanted = max(recent.wanted, recent.passed * GuestLoad.restingDemand)
        return wanted > 0 ? min(recent.lost / wanted, 1) : 0
    }
}
