internal import FrameStore
public import GuestMemory
public import LinuxHost

/// What is known of a guest besides its memory. Called on the sharing thread.
public struct GuestSignals: Sendable {
    /// Times of all its vCPUs together; nil: not known, then it counts as at rest.
    public var times: @Sendable () -> ProcessorTimes?
    /// It said that it has booted.
    public var isReady: @Sendable () -> Bool
    /// Measures what disturbing it costs on this host; nil where that is not possible.
    public var measurePrices: @Sendable () -> DisturbancePrices?

    public init(
        times: @escaping @Sendable () -> ProcessorTimes?, isReady: @escaping @Sendable () -> Bool,
        measurePrices: @escaping @Sendable () -> DisturbancePrices?
    ) {
        self.times = times
        self.isReady = isReady
        self.measurePrices = measurePrices
    }

    /// Nothing is known: the guest is merged as one at rest.
    public static let none = GuestSignals(times: { nil }, isReady: { true }, measurePrices: { nil })
}

/// Why a guest is left alone for now.
public enum SharingHold: String, Sendable {
    /// It boots: what it holds now, it will not hold then.
    case booting
    /// It is at work, and has lost as much of its time to sharing as it may.
    case guest
    /// The CPU time that sharing may take is used up.
    case cpu
}

/// Decides, before each pass, whether there is to be one: for the guest's sake, and for the host's.
struct Throttle {
    /// The longest that the thread sleeps before it looks at the guest again; nanoseconds.
    private static let look: UInt64 = 250_000_000

    private let signals: GuestSignals
    private var meter = LoadMeter()
    private var boot = BootWatch()
    private(set) var loss = LossBudget()
    private(set) var pace: SharingPace
    private(set) var load: GuestLoad?
    private var prices: DisturbancePrices?
    private let started: UInt64
    private var wasEnabled = false
    private(set) var market = StoreMarket()

    init(_ signals: GuestSignals, wall: UInt64, cpu: UInt64) {
        self.signals = signals
        started = wall
        pace = SharingPace(wall: wall, cpu: cpu)
    }

    /// Thousandths of the time that this guest's vCPUs wait for a CPU and miss it: of one that rests, none.
    var waiting: UInt16 {
        guard let load, !load.isResting else { return 0 }
        return UInt16(min(load.waiting * 1000, 60_000))
    }
    /// Nothing that is done can be a loss to it.
    private var isFree: Bool { load?.isResting ?? true }
    /// Nanoseconds that the guest may lose in the next pass.
    var lossLimit: Double { isFree ? .infinity : max(loss.credit, 0) }
    var scale: LossScale { LossScale(prices ?? .assumed, load) }

    /// Looks at guest and host.
    /// - Parameters:
    ///   - time: monotonic nanoseconds.
    ///   - cpu: as in ``SharingPace/pay(wall:cpu:policy:market:)``.
    ///   - market: what the store said last.
    /// - Returns: why there is to be no pass now, and how long to sleep; nil: a pass.
    mutating func hold(_ time: UInt64, cpu: UInt64, policy: SharingPolicy, market: StoreMarket)
        -> (reason: SharingHold, nanoseconds: UInt64)?
    {
        let times = signals.times()
        // Nobody looked while sharing was off: what the guest did then says nothing of what it does now. Until that is known it
        // counts as at rest; what it loses meanwhile is owed.
        if policy.isEnabled, !wasEnabled {
            meter = LoadMeter()
            load = nil
        }
        wasEnabled = policy.isEnabled
        if let times, let new = meter.take(time, times) {
            load = new
            loss.earn(new)
        }
        if times == nil { load = nil }
        hear(market)
        pace.pay(wall: time, cpu: cpu, policy: policy, market: self.market)
        guard policy.isEnabled else { return nil }
        if !boot.isOver {
            // Where times are not known, the guest may have had all the time there was.
            boot.take(
                isReady: signals.isReady(), load: load, running: times?.running ?? (time - min(time, started))
            )
            if !boot.isOver { return (.booting, Self.look) }
        }
        // Later than that nobody has to wait for it.
        if prices == nil { prices = signals.measurePrices() ?? .assumed }
        if !isFree, loss.delay > 0 { return (.guest, min(loss.delay, Self.look)) }
        if pace.delay > 0 { return (.cpu, min(pace.delay, Self.look)) }
        return nil
    }

    /// The engine has done this to the guest.
    mutating func pay(_ done: Disturbances) { loss.pay(scale.cost(done)) }

    /// The policy with what the guest may suffer here.
    func adjust(_ policy: SharingPolicy) -> SharingPolicy {
        guard !isFree, let prices, prices.fault > 0, policy.faultsPerSecond.isFinite else { return policy }
        var adjusted = policy
        let affordable = LossBudget.share / 2 * 1e9 / prices.fault
        adjusted.faultsPerSecond = min(policy.faultsPerSecond, affordable)
        return adjusted
    }

    private mutating func hear(_ said: StoreMarket) {
        market = said
        market.waiting = max(said.waiting, waiting)
    }

    /// A pass is over; parameters as of ``hold(_:cpu:policy:market:)``: what the pass took is paid at the price that the store
    /// named last, in the pass.
    mutating func spend(_ time: UInt64, cpu: UInt64, policy: SharingPolicy, market said: StoreMarket) {
        hear(said)
        pace.pay(wall: time, cpu: cpu, policy: policy, market: market)
    }

    /// Nanoseconds to wait after a pass.
    mutating func rest(after activity: Int, policy: SharingPolicy) -> UInt64 {
        pace.rest(after: activity, policy: policy)
    }

    mutating func hurry() { pace.hurry() }
}
