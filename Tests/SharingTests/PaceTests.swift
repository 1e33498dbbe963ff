@testable import FrameStore
import GuestMemory
import LinuxHost
import Testing
import TestSupport

@testable import Sharing

/// When a guest is left alone: arithmetic on times that the test makes up.
@Suite struct PaceTests {
    private static let second: UInt64 = 1_000_000_000

    private func load(running: Double, waiting: Double = 0, seconds: Double = 0.25) -> GuestLoad {
        GuestLoad(nanoseconds: UInt64(seconds * 1e9), running: running, waiting: waiting)
    }

    /// A guest that rests wants a few milliseconds in seconds: what it loses is not told as a share of these.
    @Test func ofARestingGuestLittleIsLittle() {
        var budget = LossBudget()
        for _ in 0..<12 { budget.earn(load(running: 0.002)) }
        budget.pay(5e6)
        #expect(budget.recentShare > 0.01 && budget.recentShare < 0.02, "5 ms of a tenth of 3 s")
        var busy = LossBudget()
        for _ in 0..<12 { busy.earn(load(running: 1)) }
        busy.pay(60e6)
        #expect(busy.recentShare > 0.019 && busy.recentShare < 0.023, "60 ms of 3 s")
    }

    // MARK: the CPU's budgets

    /// Passes of 50 ms each that never finish: the share of the time that they get is the budget.
    @Test(arguments: [0.05, 0.25, 1.0]) func budgetIsKept(share: Double) {
        var policy = SharingPolicy()
        policy.cpuShare = share
        let spent = spend(policy, StoreMarket())
        let allowed = SharingPace.burst + 1000 * share
        #expect(spent <= allowed + 0.1)
        #expect(spent >= min(allowed, 1000) * 0.95)
    }

    /// Seconds of CPU time that passes of 50 ms take in about 1000 seconds.
    private func spend(_ policy: SharingPolicy, _ market: StoreMarket) -> Double {
        var wall: UInt64 = 5
        var cpu: UInt64 = 0
        var pace = SharingPace(wall: wall, cpu: cpu)
        while wall < 1000 * Self.second {
            wall += 50_000_000
            cpu += 50_000_000
            pace.pay(wall: wall, cpu: cpu, policy: policy, market: market)
            wall += pace.rest(after: SharingPace.unfinished, policy: policy)
        }
        return Double(cpu) / 1e9
    }

    /// However many there are, together they take the same; what was saved up is not spent on top.
    @Test(arguments: [1, 4, 50]) func scarceTimeIsDivided(sharers: UInt16) {
        var policy = SharingPolicy()
        policy.scarceShare = 0.1
        var market = StoreMarket()
        market.sharers = sharers
        market.waiting = 1000
        let together = spend(policy, market) * Double(sharers)
        #expect(together <= 100 * 1.1 + 0.1 * Double(sharers))
        #expect(together >= 100 * 0.9)
    }

    @Test func whatWasSpentInPlentyIsNotOwedInNeed() {
        let policy = SharingPolicy()
        var market = StoreMarket()
        var pace = SharingPace(wall: 0, cpu: 0)
        pace.pay(wall: Self.second, cpu: 900_000_000, policy: policy, market: market)
        market.waiting = 1000
        pace.pay(wall: 2 * Self.second, cpu: 900_000_000, policy: policy, market: market)
        #expect(pace.delay == 0)
    }

    @Test func nothingToDoIsLookedAtRarely() {
        var pace = SharingPace(wall: 0, cpu: 0)
        let policy = SharingPolicy()
        var last: UInt64 = 0
        for _ in 0..<60 { last = pace.rest(after: 0, policy: policy) }
        #expect(last == policy.longestInterval)
        #expect(pace.rest(after: SharingPace.quick, policy: policy) == policy.shortestInterval)
    }

    @Test func aShareOfScarceTimeIsMoreOfPlenty() {
        var policy = SharingPolicy()
        policy.setShare(percent: 10)
        #expect(policy.scarceShare == 0.1 && policy.cpuShare == 0.25)
        policy.setShare(percent: 100)
        #expect(policy.scarceShare == 1 && policy.cpuShare == 1)
    }

    // MARK: load and boot

    @Test func loadIsWhatTimesGrewBy() {
        var meter = LoadMeter()
        #expect(meter.take(0, ProcessorTimes(running: 5, waiting: 7)) == nil)
        // Too soon to tell.
        #expect(meter.take(1000, ProcessorTimes(running: 500, waiting: 7)) == nil)
        let load = meter.take(Self.second, ProcessorTimes(running: 500_000_005, waiting: 1_500_000_007))
        #expect(load == GuestLoad(nanoseconds: Self.second, running: 0.5, waiting: 1.5))
        // A vCPU has ended.
        let less = meter.take(2 * Self.second, ProcessorTimes(running: 5, waiting: 7))
        #expect(less?.demand == 0)
    }

    @Test func bootIsOverWhenTheGuestSaysSo() {
        var boot = BootWatch()
        boot.take(isReady: false, load: load(running: 1), running: Self.second)
        #expect(!boot.isOver)
        boot.take(isReady: true, load: nil, running: Self.second)
        #expect(boot.isOver)
    }

    /// One whose vCPUs wait for the host does not rest, nor one that has hardly begun.
    @Test func bootIsOverAfterASecondOfRest() {
        var boot = BootWatch()
        for _ in 0..<20 { boot.take(isReady: false, load: load(running: 0), running: 0) }
        for _ in 0..<20 {
            boot.take(isReady: false, load: load(running: 0.02, waiting: 0.9), running: Self.second)
        }
        for _ in 0..<3 { boot.take(isReady: false, load: load(running: 0.01), running: Self.second) }
        boot.take(isReady: false, load: load(running: 0.5), running: Self.second)
        for _ in 0..<3 { boot.take(isReady: false, load: load(running: 0.01), running: Self.second) }
        #expect(!boot.isOver)
        boot.take(isReady: false, load: load(running: 0.01), running: Self.second)
        #expect(boot.isOver)
    }

    @Test func bootEndsSomeTime() {
        var boot = BootWatch()
        boot.take(isReady: false, load: load(running: 1), running: 61 * Self.second)
        #expect(boot.isOver)
    }

    // MARK: the guest's loss

    /// A busy guest that is disturbed as often as the budget allows loses two percent, whatever a disturbance costs.
    @Test(arguments: [2_000.0, 20_000, 7_000_000]) func lossIsBounded(price: Double) {
        var generator = SeededGenerator(for: "loss")
        var loss = LossBudget()
        var time: UInt64 = 0
        let scale = LossScale(DisturbancePrices(fault: price / 2, call: price), load(running: 1))
        while time < 1000 * Self.second {
            let step = UInt64.random(in: 150_000_000...400_000_000, using: &generator)
            time += step
            loss.earn(GuestLoad(nanoseconds: step, running: 0.6, waiting: 0.4))
            var done = Disturbances()
            if loss.delay > 0 { continue }
            while scale.cost(done) <= max(loss.credit, 0) {
                done.calls += 1
                done.faults += Int.random(in: 0...3, using: &generator)
            }
            loss.pay(scale.cost(done))
        }
        let share = loss.lost / loss.wanted
        #expect(share < 0.021, "\(share)")
        #expect(share > 0.018)
    }

    @Test func aGuestAtRestHasNothingToLose() {
        var loss = LossBudget()
        loss.pay(5e9)
        #expect(loss.delay > 0)
        loss.earn(load(running: 0.01))
        #expect(loss.delay == 0)
    }

    @Test func aStopCostsThoseThatWouldRun() {
        let scale = LossScale(DisturbancePrices(fault: 10, call: 100), load(running: 1.5, waiting: 0.5))
        #expect(scale.cost(Disturbances(faults: 1, calls: 2, stopped: 1000)) == 10 + 300 + 2000)
    }

    // MARK: together

    /// What a throttle is told by a guest.
    private final class Guest: Sendable {
        let told = Monitor((times: ProcessorTimes(), isReady: false, measured: 0))
        var signals: GuestSignals {
            GuestSignals(
                times: { [self] in told.withLock { $0.times } },
                isReady: { [self] in told.withLock { $0.isReady } },
                measurePrices: { [self] in
                    told.update { $0.measured += 1 }
                    return DisturbancePrices(fault: 100_000, call: 1_000_000)
                })
        }
        func run(_ nanoseconds: UInt64) { told.update { $0.times.running += nanoseconds } }
        func wait(_ nanoseconds: UInt64) { told.update { $0.times.waiting += nanoseconds } }
    }

    @Test func aGuestIsLeftAloneWhileItBootsAndBarelyTouchedWhileItWorks() {
        let guest = Guest()
        let policy = SharingPolicy()
        var time: UInt64 = 0
        var throttle = Throttle(guest.signals, wall: 0, cpu: 0)
        func turn() -> SharingHold? {
            time += 250_000_000
            return throttle.hold(time, cpu: 0, policy: policy, market: StoreMarket())?.reason
        }
        for _ in 0..<20 {
            guest.run(250_000_000)
            #expect(turn() == .booting)
        }
        #expect(guest.told.withLock { $0.measured } == 0)
        guest.told.update { $0.isReady = true }
        guest.run(250_000_000)
        #expect(turn() == nil)
        #expect(guest.told.withLock { $0.measured } == 1)
        // At work: its pages are looked at as seldom as what that costs here demands.
        #expect(throttle.adjust(policy).faultsPerSecond == 100)
        #expect(throttle.lossLimit < 50_000_000)
        throttle.pay(Disturbances(faults: 0, calls: 100, stopped: 0))
        guest.run(250_000_000)
        #expect(turn() == .guest)
        // It comes to rest.
        #expect(turn() == nil)
        #expect(throttle.lossLimit == .infinity && throttle.adjust(policy) == policy)
    }

    @Test func whoWaitsForACPUMakesItScarce() {
        let guest = Guest()
        guest.told.update { $0.isReady = true }
        let policy = SharingPolicy()
        var throttle = Throttle(guest.signals, wall: 0, cpu: 0)
        _ = throttle.hold(250_000_000, cpu: 0, policy: policy, market: StoreMarket())
        guest.wait(200_000_000)
        _ = throttle.hold(500_000_000, cpu: 0, policy: policy, market: StoreMarket())
        #expect(throttle.market.isScarce && throttle.waiting == 800)
        let hold = throttle.hold(750_000_000, cpu: 250_000_000, policy: policy, market: throttle.market)
        #expect(hold?.reason == .cpu || hold?.reason == .guest)
    }

    /// Guests that fill their memory, wait for a CPU meanwhile, and rest when sharing is turned on.
    @Test func whatAGuestDidWhileSharingWasOffIsForgotten() {
        let guest = Guest()
        guest.told.update { $0.isReady = true }
        var policy = SharingPolicy()
        policy.isEnabled = false
        var throttle = Throttle(guest.signals, wall: 0, cpu: 0)
        _ = throttle.hold(Self.second, cpu: 0, policy: policy, market: StoreMarket())
        guest.run(400_000_000)
        guest.wait(500_000_000)
        _ = throttle.hold(2 * Self.second, cpu: 0, policy: policy, market: StoreMarket())
        #expect(throttle.lossLimit < .infinity && throttle.waiting == 500)
        policy.isEnabled = true
        #expect(throttle.hold(2 * Self.second + 1, cpu: 0, policy: policy, market: StoreMarket()) == nil)
        #expect(throttle.lossLimit == .infinity && throttle.waiting == 0)
        // One that goes on working is known as such after one look, and owes what it lost until then.
        throttle.pay(Disturbances(faults: 0, calls: 100, stopped: 0))
        guest.run(250_000_000)
        let next = throttle.hold(
            2 * Self.second + 250_000_000, cpu: 0, policy: policy, market: StoreMarket())
        #expect(next?.reason == .guest)
    }

    /// The store still remembers who waited two seconds ago when a pass begins, and in the pass says that nobody does.
    @Test func aPassIsPaidAtThePriceThatTheStoreNamedLast() {
        let guest = Guest()
        guest.told.update { $0.isReady = true }
        let policy = SharingPolicy()
        var (scarce, plenty) = (StoreMarket(), StoreMarket())
        (scarce.sharers, scarce.waiting) = (4, 500)
        (plenty.sharers, plenty.waiting) = (4, 3)
        for (named, isFree) in [(plenty, true), (scarce, false)] {
            var throttle = Throttle(guest.signals, wall: 0, cpu: 0)
            #expect(throttle.hold(Self.second, cpu: 0, policy: policy, market: scarce) == nil)
            throttle.spend(Self.second + 200_000_000, cpu: 200_000_000, policy: policy, market: named)
            let rest = throttle.rest(after: SharingPace.unfinished, policy: policy)
            #expect((rest == 0) == isFree, "rests \(rest) ns")
        }
    }

    /// Ticks of an idle guest that wait for the one CPU, which a sharing thread has, are no work that waits.
    @Test func whoHardlyRunsAndSleepsIsNotStarved() {
        let second = 1_000_000_000 as UInt64
        func load(_ running: Double, _ waiting: Double) -> GuestLoad {
            GuestLoad(nanoseconds: second, running: running, waiting: waiting)
        }
        for (running, waiting, isResting) in [
            (0.0, 0.0, true), (0.05, 0.3, true), (0.09, 0.4, true), (0.09, 0.42, false), (0.04, 0.96, false),
            (0.11, 0.0, false), (0.2, 0.1, false), (1, 0, false),
        ] { #expect(load(running, waiting).isResting == isResting, "\(running), \(waiting)") }
        let guest = Guest()
        guest.told.update { $0.isReady = true }
        var throttle = Throttle(guest.signals, wall: 0, cpu: 0)
        let policy = SharingPolicy()
        _ = throttle.hold(second, cpu: 0, policy: policy, market: StoreMarket())
        guest.run(50_000_000)
        guest.wait(300_000_000)
        #expect(throttle.hold(2 * second, cpu: 0, policy: policy, market: StoreMarket()) == nil)
        #expect(throttle.waiting == 0 && !throttle.market.isScarce && throttle.lossLimit == .infinity)
        guest.run(40_000_000)
        guest.wait(900_000_000)
        _ = throttle.hold(3 * second, cpu: 0, policy: policy, market: StoreMarket())
        #expect(throttle.waiting == 900 && throttle.market.isScarce && throttle.lossLimit < .infinity)
    }

    /// A guest with small merges in every pass gives buffers back before it rests; one that is merged at full speed keeps them.
    @Test func buffersGoBackBeforeARest() {
        let (short, long) = (UInt64(20_000_000), UInt64(100_000_000))
        var use = BufferUse()
        func pass(_ activity: Int, _ hadWindow: Bool, _ rest: UInt64) -> Bool {
            use.passed(activity: activity, hadWindow: hadWindow, rest: rest)
        }
        for _ in 0..<100 { #expect(!pass(5000, true, short)) }
        #expect(pass(0, true, long))
        #expect(!pass(0, true, long), "there is next to nothing in them")
        // Little by little.
        let turns = (0..<70).map { _ in pass(10, true, long) }
        #expect(turns.count { $0 } == 10)
        use = BufferUse()
        let idle = (0..<10).map { _ in pass(1, false, short) }
        #expect(idle == [false, false, true] + [Bool](repeating: false, count: 7), "once")
        // What a pass reports that left work behind does not overflow.
        for _ in 0..<3 { #expect(!pass(SharingPace.unfinished, true, 0)) }
    }

    /// Where the host's kernel does not count, the guest is merged as one at rest once it has booted.
    @Test func withoutTimesReadinessDecides() {
        let isReady = Monitor(false)
        let signals = GuestSignals(
            times: { nil }, isReady: { isReady.withLock { $0 } }, measurePrices: { nil })
        let policy = SharingPolicy()
        var throttle = Throttle(signals, wall: 0, cpu: 0)
        #expect(
            throttle.hold(Self.second, cpu: 0, policy: policy, market: StoreMarket())?.reason == .booting)
        isReady.update { $0 = true }
        #expect(throttle.hold(2 * Self.second, cpu: 0, policy: policy, market: StoreMarket()) == nil)
        #expect(throttle.lossLimit == .infinity)
    }
}
