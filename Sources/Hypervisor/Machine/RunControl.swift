internal import GuestMemory
internal import LinuxHost
internal import Synchronization

/// What all vCPU threads of a guest obey, and what they answer.
///
/// Every change of mind has a number of its own (a generation), which a vCPU repeats when it has obeyed. A flag would
/// not do: after resume and pause in quick succession, a vCPU that saw neither would take its old answer for the new one.
///
/// ```
///            resume                 end, stop
///   paused <--------> running  ------------------> ended
///            pause
/// ```
/// Lock order: the monitor here is innermost but for a thread's own.
final class RunControl: Sendable {
    enum Command: UInt64 { case run, pause, end }

    private struct State {
        var generation: UInt64 = 1
        var command = Command.pause
        /// Callers of `pause` that have not resumed. The machine starts paused, held once by its owner.
        var pauseDepth = 1
        /// The generation since which nobody may run: that of the pause or of the end, whichever came first.
        var stoppedSince: UInt64 = 1
        /// By vCPU: the last generation that it obeyed while outside the guest. All are outside before they begin.
        var acknowledged: [UInt64]
        /// vCPU threads that have ended.
        var finished = 0
        var end: GuestEnd?
    }

    private let processorCount: Int
    private let state: Monitor<State>
    /// The current generation, for a vCPU to look at without the lock before each entry.
    private let request = Atomic<UInt64>(1)
    /// Called once, when the end is known; on the thread that brought it about.
    private let ended: @Sendable () -> Void

    init(processorCount: Int, ended: @escaping @Sendable () -> Void) {
        self.processorCount = processorCount
        self.ended = ended
        // A vCPU whose thread has not started has obeyed: the first generation is a pause.
        state = Monitor(State(acknowledged: [UInt64](repeating: 1, count: processorCount)))
    }

    /// The end of the guest, once it has come.
    var end: GuestEnd? { state.withLock { $0.end } }
    var isPaused: Bool { state.withLock { $0.command == .pause } }

    // MARK: controllers

    /// Stops all vCPUs outside the guest and returns when they are, also when the guest ends meanwhile or has ended.
    /// Nests.
    func pause(kick: (Int) -> Void) { _ = pause(until: .max, kick: kick) }

    /// As `pause(kick:)`, but waits until `limit` (monotonic nanoseconds) at the latest. The pause is asked for in any case:
    /// a `resume` follows.
    /// - Returns: the vCPUs that are not outside yet.
    func pause(until limit: UInt64, kick: (Int) -> Void) -> [Int] {
        waitUntilPaused(requestPause(), until: limit, kick: kick)
    }

    /// The first half of a pause: asks, and does not wait. A `resume` follows.
    /// - Returns: what to wait for.
    func requestPause() -> UInt64 {
        state.update { state in
            state.pauseDepth += 1
            if state.command == .run { change(&state, to: .pause) }
            return state.stoppedSince
        }
    }

    /// The second half: makes the vCPUs leave the guest, and waits until `limit` (monotonic nanoseconds) at the latest.
    /// - Returns: the vCPUs that are not outside yet.
    func waitUntilPaused(_ generation: UInt64, until limit: UInt64, kick: (Int) -> Void) -> [Int] {
        // A thread that is about to enter the guest sees immediate_exit or the signal; if a signal is lost on a thread
        // that is in a system call of its own, the next one comes within 2 ms.
        while true {
            let late = state.withLock { state in
                (0..<processorCount).filter { state.acknowledged[$0] < generation }
            }
            let now = monotonicNanoseconds()
            if late.isEmpty || now >= limit { return late }
            late.forEach(kick)
            _ = state.wait(until: min(limit, now + 2_000_000)) { state in
                state.acknowledged.contains { $0 < generation } ? nil : true
            }
        }
    }

    /// Undoes one `pause`; the last one lets the vCPUs go on.
    func resume() {
        state.update { state in
            precondition(state.pauseDepth > 0, "resume follows a pause")
            state.pauseDepth -= 1
            if state.pauseDepth == 0, state.command == .pause { change(&state, to: .run) }
        }
    }

    /// Ends the guest; the first reason given is the one that counts. All vCPUs leave.
    func end(_ reason: GuestEnd, kick: (Int) -> Void) {
        let first = state.update { state in
            guard state.end == nil else { return false }
            state.end = reason
            change(&state, to: .end)
            return true
        }
        guard first else { return }
        (0..<processorCount).forEach(kick)
        ended()
    }

    /// As `end(_:kick:)`, from a vCPU's own thread: the others are kicked by whoever learns of the end.
    func endFromProcessor(_ reason: GuestEnd) { end(reason, kick: { _ in }) }

    /// Waits until every vCPU thread has left, reminding those that have not.
    func waitForThreads(kick: (Int) -> Void) {
        while true {
            let all: Bool? = state.wait(until: monotonicNanoseconds() + 2_000_000) { [processorCount] state in
                state.finished == processorCount ? true : nil
            }
            if all != nil { return }
            (0..<processorCount).forEach(kick)
        }
    }

    private func change(_ state: inout State, to command: Command) {
        state.generation += 1
        if state.command == .run { state.stoppedSince = state.generation }
        state.command = command
        request.store(state.generation, ordering: .sequentiallyConsistent)
    }

    // MARK: vCPU threads

    /// Whether something changed since `seen`; cheap, before every entry.
    func hasChanged(since seen: UInt64) -> Bool {
        request.load(ordering: .sequentiallyConsistent) != seen
    }

    /// Obeys the current command: acknowledges it, waits while paused.
    /// - Returns: false when the thread must end.
    func checkIn(_ index: Int, seen: inout UInt64) -> Bool {
        let generation: UInt64? =
            state.wait { state -> UInt64?? in
                if state.acknowledged[index] < state.generation {
                    state.acknowledged[index] = state.generation
                    wake()
                }
                switch state.command {
                case .run: return .some(state.generation)
                case .pause: return nil
                case .end: return .some(nil)
                }
            } ?? nil
        guard let generation else { return false }
        seen = generation
        return true
    }

    /// Waits until the deadline (monotonic nanoseconds) or the next change.
    func sleep(until deadline: UInt64, seen: UInt64) {
        _ = state.wait(until: deadline) { state in state.generation != seen ? true : nil }
    }

    /// A vCPU thread's last word, or that of its owner when it never began: it will not enter the guest again.
    func finish(_ index: Int) {
        state.update { state in
            state.finished += 1
            state.acknowledged[index] = UInt64.max
        }
    }

    private func wake() { state.wakeAll() }
}
