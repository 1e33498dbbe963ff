import GuestMemory
import Synchronization

/// When things happened, for the report; nanoseconds of the monotonic clock.
final class Timeline: Sendable {
    struct Ring: Sendable {
        let number: UInt32
        let processor: Int
        let at: UInt64
    }
    private struct State {
        var entered: UInt64?
        var isReady = false
        var acceptsInput = false
        var rings: [Ring] = []
        var ringCount = 0
    }
    /// A guest may ring without end; the report keeps the first.
    static let keptRings = 64

    let started: UInt64
    private let state = Mutex(State())

    init(started: UInt64) { self.started = started }

    func enter() { state.withLock { $0.entered = monotonicNanoseconds() } }

    func ring(_ number: UInt32, _ processor: Int) {
        let now = monotonicNanoseconds()
        state.withLock { state in
            state.ringCount += 1
            if number == 1 { state.isReady = true }
            if number == 2 { state.acceptsInput = true }
            if state.rings.count < Self.keptRings {
                state.rings.append(Ring(number: number, processor: processor, at: now))
            }
        }
    }

    var entered: UInt64? { state.withLock { $0.entered } }
    /// Whether the guest has rung 1, "ready".
    var isReady: Bool { state.withLock { $0.isReady } }
    /// Whether the guest has rung 2: its terminal line takes any bytes (guests/linux/README.md).
    var acceptsInput: Bool { state.withLock { $0.acceptsInput } }

    /// The fields of the report that are times, as JSON members.
    func json(built: UInt64, ended: UInt64) -> String {
        state.withLock { state in
            let rings = state.rings.map {
                "{\"number\": \($0.number), \"processor\": \($0.processor), \"ns\": \($0.at)}"
            }
            return """
                  "started_ns": \(started),
                  "built_ns": \(built),
                  "entered_ns": \(state.entered.map { "\($0)" } ?? "null"),
                  "ended_ns": \(ended),
                  "doorbell_count": \(state.ringCount),
                  "doorbells": [\(rings.joined(separator: ", "))]
                """
        }
    }
}
