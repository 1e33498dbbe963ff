import GuestMemory
import LinuxHost
import Hypervisor
import Synchronization
import VMMProtocol

/// When things happened, for the report; nanoseconds of the monotonic clock.
final class Timeline: Sendable {
    private struct State {
        var entered: UInt64?
        var isReady = false
        var readyAfter: UInt64?
        var acceptsInput = false
        var bootMessages: UInt64?
        var serial: Serial16550?
        var rings: [GuestReport.Ring] = []
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
            if number == Doorbell.ready, !state.isReady {
                state.isReady = true
                state.readyAfter = now - started
            }
            if number == Doorbell.acceptsInput, !state.acceptsInput {
                state.acceptsInput = true
                state.bootMessages = state.serial?.sentCount
            }
            if state.rings.count < Self.keptRings {
                state.rings.append(GuestReport.Ring(number: number, processor: processor, at: now))
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

    /// How often the guest rang, and the first rings.
    var rings: (count: Int, kept: [GuestReport.Ring]) { state.withLock { ($0.ringCount, $0.rings) } }
}
