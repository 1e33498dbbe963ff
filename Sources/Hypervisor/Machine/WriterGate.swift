internal import LinuxHost

/// Work of one thread on guest memory, done in pieces, that a pause keeps from beginning: what an event loop does for devices.
///
/// ```
///  open --run--> inside --> open;   open --pause--> closed (whoever is inside is waited for) --resume--> open, and `reopened` told
/// ```
package final class WriterGate: PauseMember {
    private struct State {
        var depth = 0
        var isInside = false
        /// Somebody came while it was closed.
        var wasMissed = false
    }
    private let state = Monitor(State())
    private let reopened: @Sendable () -> Void

    /// - Parameter reopened: called when it is open again and somebody found it closed; on the thread that resumed, must not
    ///   block.
    package init(reopened: @escaping @Sendable () -> Void) { self.reopened = reopened }

    /// Does a piece of work, unless the gate is closed. On one thread.
    /// - Returns: false when it was closed: to be tried again when it is told to be open.
    package func run(_ body: () -> Void) -> Bool {
        let enters = state.withLock { state in
            if state.depth > 0 { state.wasMissed = true } else { state.isInside = true }
            return state.depth == 0
        }
        guard enters else { return false }
        body()
        state.update { $0.isInside = false }
        return true
    }

    package func requestPause() -> UInt64 {
        state.withLock { $0.depth += 1 }
        return 0
    }

    package func waitUntilPaused(_ request: UInt64) {
        let _: Void? = state.wait { $0.isInside ? nil : () }
    }

    package func resume() {
        let isMissed = state.withLock { state in
            precondition(state.depth > 0, "resume follows a pause")
            state.depth -= 1
            guard state.depth == 0, state.wasMissed else { return false }
            state.wasMissed = false
            return true
        }
        if isMissed { reopened() }
    }
}
