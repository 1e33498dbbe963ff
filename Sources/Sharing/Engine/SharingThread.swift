public import GuestMemory

/// Runs an engine on a thread of its own, at the pace that its CPU budget allows.
///
/// ```
///  started --> sharing <--on / off--> going home --> home
///     \___________\______ stop ___________\__________/
/// ```
/// All methods may be called from any thread. The engine itself lives on the sharing thread only.
public final class SharingThread: Sendable {
    /// What is known of the engine, for whoever asks.
    public struct Snapshot: Sendable {
        public var statistics = SharingStatistics()
        public var policy = SharingPolicy()
        /// Sharing is off and every page is home again.
        public var isHome = false
        /// Passes since the start; a waiter can tell whether one has begun and ended since.
        public var passes = 0
        /// The last passes found nothing to do.
        public var isSettled = false
        /// Why sharing stopped for good, if it did.
        public var failure: String?
    }

    private struct State {
        var snapshot: Snapshot
        var mustStop = false
        /// The engine was made, or could not be: what it opens and maps is there.
        var isMade = false
        /// Counts requests, so that the thread notices each.
        var requests = 0
        /// Who wants mappings to stay as they are, and whether a pass is under way.
        var holds = 0
        var isInPass = false
    }

    /// Passes without a window after which buffers are given back.
    private static let passesToRest = 3
    private static let connectInterval: UInt64 = 500_000_000
    /// Between a pass that merged much and the next.
    private static let hearings = 3
    private static let noticeInterval = SharingEngine.noticeInterval

    private let state: Monitor<State>
    private let thread: HostThread

    /// Starts the thread.
    /// - Parameters:
    ///   - make: builds the engine; called on the thread.
    ///   - connect: finds a store for it if there is one; called on the thread, now and then while it has none.
    ///   - failed: the guest must be stopped: part of its memory is gone. Called on the thread.
    public init(
        policy: SharingPolicy, make: @escaping @Sendable () throws -> SharingEngine,
        connect: @escaping @Sendable (SharingEngine) -> Void, failed: @escaping @Sendable (String) -> Void
    ) throws(LinuxError) {
        var snapshot = Snapshot()
        snapshot.policy = policy
        let state = Monitor(State(snapshot: snapshot))
        self.state = state
        thread = try HostThread(name: "scanner") {
            do {
                let engine = try make()
                state.update { $0.isMade = true }
                Self.run(engine, state, connect, failed)
            } catch {
                state.update {
                    $0.isMade = true
                    $0.snapshot.failure = "\(error)"
                }
            }
        }
        // The guest does not run before: nothing of that has to be had beside it.
        _ = state.wait { $0.isMade ? true : nil }
    }

    /// What is known now.
    public var snapshot: Snapshot { state.withLock { $0.snapshot } }

    /// Changes the policy; sharing is turned off and on by it, too.
    public func setPolicy(_ change: (inout SharingPolicy) -> Void) {
        state.update { state in
            change(&state.snapshot.policy)
            state.snapshot.isHome = false
            state.requests += 1
        }
    }

    /// Waits until `body` is true of what is known, looking after every pass.
    /// - Returns: false when the deadline (monotonic nanoseconds) came first.
    public func wait(until deadline: UInt64, _ body: (Snapshot) -> Bool) -> Bool {
        state.wait(until: deadline) { body($0.snapshot) ? true : nil } ?? false
    }

    /// Runs `body` while the engine changes no mapping, for whoever reads guest memory without being stopped by a pause.
    public func withMappingsHeld<Result, Failure: Error>(
        _ body: () throws(Failure) -> Result
    ) throws(Failure) -> Result {
        state.update { $0.holds += 1 }
        defer {
            state.update {
                $0.holds -= 1
                $0.requests += 1
            }
        }
        _ = state.wait { $0.isInPass ? nil : true }
        return try body()
    }

    /// Ends the thread; mappings stay as they are.
    public func stop() {
        state.update {
            $0.mustStop = true
            $0.requests += 1
        }
        thread.join()
    }

    // MARK: the thread

    private static func run(
        _ engine: SharingEngine, _ state: Monitor<State>, _ connect: (SharingEngine) -> Void,
        _ failed: (String) -> Void
    ) {
        var pace = SharingPace(wall: monotonicNanoseconds(), cpu: threadCPUNanoseconds())
        var nextConnect: UInt64 = 0
        var quiet = 0
        defer { state.update { $0.isInPass = false } }
        func end(_ failure: MappingFailure) {
            state.update { $0.snapshot.failure = "\(failure)" }
            failed("guest memory was lost while it was remapped: \(failure)")
        }
        var (windows, passesWithout) = (0, 0)
        while true {
            // The store must hear from us also while somebody holds the mappings.
            while state.wait(
                until: monotonicNanoseconds() + noticeInterval,
                { state -> Bool? in
                    guard state.holds == 0 || state.mustStop else { return nil }
                    state.isInPass = true
                    return true
                }) == nil
            { engine.keepInTouch() }
            let (policy, requests, mustStop) = state.withLock {
                ($0.snapshot.policy, $0.requests, $0.mustStop)
            }
            if mustStop { return }
            engine.setPolicy(policy)
            var activity = 0
            var isEager = false
            do throws(LinuxError) {
                // At the start in any case: who is to share later keeps the store's broker from ending for want of clients.
                if policy.isEnabled || nextConnect == 0, !engine.statistics.hasStore,
                    monotonicNanoseconds() >= nextConnect
                {
                    connect(engine)
                    nextConnect = monotonicNanoseconds() + connectInterval
                }
                if policy.isEnabled {
                    let result = try engine.pass()
                    activity = result.isUnfinished ? SharingPace.unfinished : result.activity
                    isEager = result.isEager
                } else {
                    let before = engine.statistics.pagesRehomed
                    // What cannot go home now (a transfer is under way, no mapping is left) is tried again after a while.
                    if engine.goHome(limit: 1024) {
                        activity = engine.statistics.pagesRehomed > before ? SharingPace.unfinished : 1
                    }
                }
            } catch { return state.update { $0.snapshot.failure = "\(error)" } }
            if let failure = engine.fatal { return end(failure) }

            quiet = activity == 0 ? quiet + 1 : 0
            passesWithout = engine.statistics.windows.count == windows ? passesWithout + 1 : 0
            windows = engine.statistics.windows.count
            if passesWithout == Self.passesToRest { engine.rest() }
            state.update { state in
                state.snapshot.statistics = engine.statistics
                state.snapshot.isHome = !policy.isEnabled && activity == 0 && state.requests == requests
                state.snapshot.isSettled = quiet >= 2 && !policy.holdsMerges
                state.snapshot.passes += 1
            }
            let now = monotonicNanoseconds()
            let rest = pace.rest(after: activity, wall: now, cpu: threadCPUNanoseconds(), policy: policy)
            let isHome = !policy.isEnabled && activity == 0
            if isHome {
                pace.hurry()
                engine.rest()
            }
            state.update { $0.isInPass = false }
            wait(
                state, until: isHome ? nil : now + rest, for: requests, engine,
                hearings: isEager ? hearings : 0)
            if let failure = engine.fatal { return end(failure) }
        }
    }

    /// Waits for the time or a request; the store hears from us meanwhile.
    /// - Parameter hearings: how often at most what others published meanwhile is merged; evenly spaced, if the time is short.
    private static func wait(
        _ state: Monitor<State>, until end: UInt64?, for requests: Int, _ engine: SharingEngine, hearings: Int
    ) {
        var left = hearings
        while true {
            let now = monotonicNanoseconds()
            if let end, end <= now { return }
            var next = min(end ?? UInt64.max, now + noticeInterval)
            if left > 0, let end { next = min(next, now + (end - now) / UInt64(left + 1)) }
            if state.wait(until: next, { $0.requests != requests ? true : nil }) != nil { return }
            if next == end { return }
            if left > 0 {
                left -= 1
                hearNews(state, engine)
                if engine.fatal != nil { return }
            } else {
                engine.keepInTouch()
            }
        }
    }

    private static func hearNews(_ state: Monitor<State>, _ engine: SharingEngine) {
        let mayMap = state.withLock { state in
            if state.holds == 0 { state.isInPass = true }
            return state.holds == 0
        }
        // The thread's next turn waits for the hold to end, and keeps in touch.
        guard mayMap else { return }
        engine.hearNews()
        state.update { state in
            state.snapshot.statistics = engine.statistics
            // Nobody may look at memory that is lost, until the guest is told.
            if engine.fatal == nil { state.isInPass = false }
        }
    }
}
