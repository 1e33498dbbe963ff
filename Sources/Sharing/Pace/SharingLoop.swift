internal import GuestMemory
internal import LinuxHost
internal import FrameStore

/// What a sharing thread does between its start and its end.
///
/// ```
///  turn: hold of mappings over? -> store? -> left alone? --no--> pass -----> rest until the next turn is due, asked for, or
///          (store hears from us)              \--yes: why, and for how long--^     there are promotions
/// ```
final class SharingLoop {
    private static let connectInterval: UInt64 = 500_000_000
    /// Between a pass that merged much and the next.
    private static let hearings = 3
    private static let noticeInterval = SharingEngine.noticeInterval
    /// How often a guest that is left alone tells the store how long its vCPUs wait, and hears how scarce CPU time is.
    private static let reportInterval: UInt64 = 500_000_000

    private let engine: SharingEngine
    private let state: Monitor<SharingThread.State>
    private let connect: (SharingEngine) -> Void
    private let failed: (String) -> Void
    private var throttle: Throttle
    private var nextConnect: UInt64 = 0
    private var nextReport: UInt64 = 0
    private var quiet = 0
    private var windows = 0
    private var buffers = BufferUse()

    init(
        _ engine: SharingEngine, _ state: Monitor<SharingThread.State>, _ signals: GuestSignals,
        _ connect: @escaping (SharingEngine) -> Void, _ failed: @escaping (String) -> Void
    ) {
        self.engine = engine
        self.state = state
        self.connect = connect
        self.failed = failed
        throttle = Throttle(signals, wall: monotonicNanoseconds(), cpu: threadCPUNanoseconds())
    }

    /// Runs until the thread is told to stop, or sharing has failed for good.
    func run() {
        defer { state.update { $0.isInPass = false } }
        while true {
            waitForHolds()
            let (policy, requests, mustStop) = state.withLock {
                ($0.snapshot.policy, $0.requests, $0.mustStop)
            }
            if mustStop { return }
            answerQuestions()
            do throws(LinuxError) {
                guard try turn(policy, requests) else { return end() }
            } catch { return state.update { $0.snapshot.failure = "\(error)" } }
        }
    }

    private func answerQuestions() {
        let questions = state.withLock { state in
            defer { state.questions = [] }
            return state.questions
        }
        for question in questions where engine.fatal == nil { question(engine) }
    }

    private func end() {
        guard let failure = engine.fatal else { return }
        state.update { $0.snapshot.failure = "\(failure)" }
        failed("guest memory was lost while it was remapped: \(failure)")
    }

    /// Returns when nobody holds the mappings, or the thread must stop; they are this thread's then. The store hears from us
    /// also meanwhile.
    private func waitForHolds() {
        while state.wait(
            until: monotonicNanoseconds() + Self.noticeInterval,
            { state -> Bool? in
                guard state.holds == 0 || state.mustStop else { return nil }
                state.isInPass = true
                return true
            }) == nil
        { engine.keepInTouch() }
    }

    /// CPU time that sharing has taken for this guest, the store's part included; nanoseconds.
    private var spent: UInt64 { threadCPUNanoseconds() + engine.link.storeNanoseconds }

    /// - Returns: false when the guest's memory is lost.
    private func turn(_ policy: SharingPolicy, _ requests: Int) throws(LinuxError) -> Bool {
        // At the start in any case: who is to share later keeps the store's broker from ending for want of clients.
        if policy.isEnabled || nextConnect == 0 || engine.mustReconnect, !engine.statistics.hasStore,
            monotonicNanoseconds() >= nextConnect
        {
            connect(engine)
            nextConnect = monotonicNanoseconds() + Self.connectInterval
        }
        let hold = throttle.hold(
            monotonicNanoseconds(), cpu: spent, policy: policy, market: engine.link.market)
        engine.setPolicy(throttle.adjust(policy))
        engine.link.waiting = throttle.waiting
        sayThatNobodyWaits()
        if let hold {
            leaveAlone(hold.reason)
            wait(until: monotonicNanoseconds() + hold.nanoseconds, for: requests, hearings: 0)
            return engine.fatal == nil
        }
        let (activity, isEager) = try work(policy)
        if engine.fatal != nil { return false }
        publish(policy, activity, requests)
        let now = monotonicNanoseconds()
        throttle.spend(now, cpu: spent, policy: policy, market: engine.link.market)
        let rest = throttle.rest(after: activity, policy: policy)
        let isHome = !policy.isEnabled && activity == 0
        let hadWindow = engine.statistics.windows.count != windows
        windows = engine.statistics.windows.count
        let isRest = buffers.passed(activity: activity, hadWindow: hadWindow, rest: rest)
        if isRest || isHome { engine.releaseBuffers() }
        if isHome { throttle.hurry() }
        state.update { $0.isInPass = false }
        // At home there is nothing to do, unless a store has to be told so.
        let next = isHome ? (engine.mustReconnect ? nextConnect : nil) : now + rest
        wait(
            until: next, for: requests,
            hearings: isEager && throttle.lossLimit == .infinity ? Self.hearings : 0)
        return engine.fatal == nil
    }

    /// A pass, or some pages on their way home.
    private func work(_ policy: SharingPolicy) throws(LinuxError) -> (activity: Int, isEager: Bool) {
        defer {
            throttle.pay(engine.conditions.disturbances)
            engine.conditions.disturbances = Disturbances()
        }
        if policy.isEnabled {
            engine.conditions.lossLimit = throttle.lossLimit
            engine.conditions.lossScale = throttle.scale
            let result = try engine.pass()
            return (result.isUnfinished ? SharingPace.unfinished : result.activity, result.isEager)
        }
        let before = engine.statistics.pagesRehomed
        // What cannot go home now (a transfer is under way, no mapping is left) is tried again after a while.
        guard engine.goHome(limit: 1024) else { return (0, false) }
        return (engine.statistics.pagesRehomed > before ? SharingPace.unfinished : 1, false)
    }

    private func publish(_ policy: SharingPolicy, _ activity: Int, _ requests: Int) {
        quiet = activity == 0 ? quiet + 1 : 0
        noteLoss()
        state.update { state in
            state.snapshot.statistics = engine.statistics
            state.snapshot.hold = nil
            state.snapshot.isHome = !policy.isEnabled && activity == 0 && state.requests == requests
            state.snapshot.isSettled = quiet >= 2 && !policy.holdsMerges
            state.snapshot.passes += 1
        }
    }

    private func noteLoss() {
        engine.journal.count { statistics in
            statistics.lostNanoseconds = UInt64(throttle.loss.lost)
            statistics.wantedNanoseconds = UInt64(throttle.loss.wanted)
            statistics.recentLoss = throttle.loss.recentShare
        }
    }

    /// Who said that its vCPUs lack CPU time says as soon as they do not any more: all others hold back until then.
    private func sayThatNobodyWaits() {
        guard engine.link.saidWaiting >= StoreMarket.scarceFrom, throttle.waiting < StoreMarket.scarceFrom
        else { return }
        engine.sendKeepalive()
    }

    /// There is no pass now.
    private func leaveAlone(_ reason: SharingHold) {
        let now = monotonicNanoseconds()
        if throttle.market.isScarce, now >= nextReport {
            nextReport = now + Self.reportInterval
            engine.sendKeepalive()
        } else {
            engine.keepInTouch()
        }
        noteLoss()
        state.update { state in
            state.snapshot.statistics = engine.statistics
            state.snapshot.hold = reason
            state.snapshot.isSettled = false
            state.isInPass = false
        }
    }

    // MARK: between turns

    /// Waits for the time or a request; the store hears from us meanwhile.
    /// - Parameter hearings: how often at most what others published meanwhile is merged; evenly spaced, if the time is short.
    private func wait(until end: UInt64?, for requests: Int, hearings: Int) {
        var left = hearings
        while true {
            let now = monotonicNanoseconds()
            if let end, end <= now { return }
            var next = min(end ?? UInt64.max, now + Self.noticeInterval)
            if left > 0, let end { next = min(next, now + (end - now) / UInt64(left + 1)) }
            if state.wait(until: next, { $0.requests != requests ? true : nil }) != nil { return }
            if next == end { return }
            if left > 0 {
                left -= 1
                pollPromotions()
                if engine.fatal != nil { return }
            } else {
                engine.keepInTouch()
            }
        }
    }

    private func pollPromotions() {
        let mayMap = state.withLock { state in
            if state.holds == 0 { state.isInPass = true }
            return state.holds == 0
        }
        // The thread's next turn waits for the hold to end, and keeps in touch.
        guard mayMap else { return }
        engine.pollPromotions()
        state.update { state in
            state.snapshot.statistics = engine.statistics
            // Nobody may look at memory that is lost, until the guest is told.
            if engine.fatal == nil { state.isInPass = false }
        }
    }
}
