import GuestMemory
import LinuxHost
import Hypervisor

/// Hands piped input to the serial line in bursts, with a rest as long as each burst took.
///
/// A line that is never empty keeps Linux's interrupt handler busy for ever: the worker that would lower RTS does not
/// get to run, the buffer between the two (64 KiB) overflows, and bytes are lost. So a burst is what the handler takes in
/// one pass, and the guest has as much time for everything else, however slow it is.
struct PacedInput {
    /// Bytes; what the handler of Linux reads before it looks around (serial8250_rx_chars).
    private static let burst = 256
    /// Nanoseconds. A guest that held the line for seconds needs no rest of seconds.
    private static let rest: ClosedRange<UInt64> = 100_000...100_000_000

    private var waiting: ArraySlice<UInt8> = []
    /// When the burst that the guest is taking began.
    private var burstStart: UInt64?
    private var nextBurst: UInt64 = 0

    var count: Int { waiting.count }

    mutating func append(_ bytes: [UInt8]) { waiting += bytes }

    /// Begins the next burst if it is due.
    /// - Returns: when to call again, in monotonic nanoseconds; nil: when the line has been emptied or input has come.
    mutating func feed(_ serial: Serial16550) -> UInt64? {
        guard !waiting.isEmpty, serial.waitingInput == 0 else { return nil }
        let now = monotonicNanoseconds()
        if let start = burstStart {
            burstStart = nil
            nextBurst = now + min(max(now - start, Self.rest.lowerBound), Self.rest.upperBound)
        }
        guard now >= nextBurst else { return nextBurst }
        burstStart = now
        waiting = waiting.dropFirst(serial.receive(Array(waiting.prefix(Self.burst))))
        if waiting.isEmpty { waiting = [] }
        return nil
    }
}
