import GuestMemory
import LinuxHost
import Hypervisor
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
        var readyAfter: UInt64?
        var acceptsInput = false
        var bootMessages: UInt64?
        var serial: Serial16550?
        var rings: [Ring] = []
        var ringCount = 0
    }
    /// A guest may ring without end; the report keeps the first.
    static let keptRings = 64

    let started: UInt64
    private let state = Mutex(State())

    init(started: UInt64) { self.started = started }

    func enter() { state.withLock { $0.entered = monotonicNanoseconds() } }

    /// The line whose bytes are counted; before the guest starts.
    func observe(_ serial: Serial16550) { state.withLock { $0.serial = serial } }

    func ring(_ number: UInt32, _ processor: Int) {
        let now = monotonicNanoseconds()
        state.withLock { state in
            state.ringCount += 1
            if number == 1, !state.isReady {
                state.isReady = true
                state.readyAfter = now - started
            }
            if number == 2, !state.acceptsInput {
                state.acceptsInput = true
                state.bootMessages = state.serial?.sentCount
            }
            if state.rings.count < Self.keptRings {
                state.rings.append(Ring(number: number, processor: processor, at: now))
            }
        }
    }

    var entered: UInt64? { state.withLock { $0.entered } }
    /// Whether the guest has rung 1, "ready".
    var isReady: Bool { state.withLock { $0.isReady } }
    /// Nanoseconds from the start of this process to the first ring of 1.
    var readyAfter: UInt64? { state.withLock { $0.readyAfter } }
    /// Whether the guest has rung 2: its terminal line takes any bytes (guests/linux/README.md).
    var acceptsInput: Bool { state.withLock { $0.acceptsInput } }

    /// How much of what the guest wrote on its serial line came before that; nil until then.
    var bootMessages: UInt64? { state.withLock { $0.bootMessages } }

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
