internal import GuestMemory
public import LinuxHost

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
        /// Why the guest is left alone for now; nil while it is merged.
        public var hold: SharingHold?
        /// Why sharing stopped for good, if it did.
        public var failure: String?
    }

    struct State {
        var snapshot: Snapshot
        var mustStop = false
        /// The engine was made, or could not be: what it opens and maps is there.
        var isMade = false
        /// Counts requests, so that the thread notices each.
        var requests = 0
        /// Who wants mappings to stay as they are, and whether a pass is under way.
        var holds = 0
        var isInPass = false
        /// Asked by others, answered between two turns.
        var questions: [@Sendable (SharingEngine) -> Void] = []
    }

    private let state: Monitor<State>
    private let thread: HostThread

    /// Starts the thread.
    /// - Parameters:
    ///   - make: builds the engine; called on the thread.
    ///   - connect: finds a store for it if there is one; called on the thread, now and then while it has none.
    ///   - signals: what tells whether the guest is to be left alone.
    ///   - failed: the guest must be stopped: part of its memory is gone. Called on the thread.
    public init(
        policy: SharingPolicy, signals: GuestSignals = .none,
        make: @escaping @Sendable () throws -> SharingEngine,
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
                SharingLoop(engine, state, signals, connect, failed).run()
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

    /// Something changed that the thread should look at now: the guest has booted, or a store is to be had.
    public func wake() { state.update { $0.requests += 1 } }

    /// Asks the engine something between two turns.
    /// - Parameter deadline: monotonic nanoseconds.
    /// - Returns: nil when there was no answer by then, or the thread has ended.
    public func ask<Answer: Sendable>(
        until deadline: UInt64, _ question: @escaping @Sendable (SharingEngine) -> Answer
    ) -> Answer? {
        let answer = Monitor<Answer?>(nil)
        state.update { state in
            state.questions.append { engine in answer.update { $0 = question(engine) } }
            state.requests += 1
        }
        return answer.wait(until: deadline) { $0 }
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
}
