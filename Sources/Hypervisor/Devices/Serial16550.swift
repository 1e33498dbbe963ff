internal import GuestMemory
internal import LinuxHost

/// A 16550A UART with FIFOs (National Semiconductor PC16550D), interrupt-driven.
///
/// What the guest sends waits in a ring for the host's console loop; while the ring is full the transmitter says that
/// it is busy, so a slow reader slows the guest and never blocks its vCPU. What the host sends waits in a queue of the
/// same kind and enters the receiver's FIFO as that has room: hardware flow control on the host's side. A guest that
/// lowers RTS stops it, as Linux does when the reader falls behind (`stty crtscts`) and before anybody opened the line;
/// one that never touches the modem control register gets everything at once. Modem lines say: connected. The divisor
/// is stored and otherwise ignored.
public final class Serial16550: PortDevice {
    /// Bytes that may wait for the host, and for the guest.
    public static let capacity = 64 << 10
    /// Depth of the receiver's FIFO.
    private static let fifoSize = 16
    /// Bytes that are kept of what was sent.
    private static let recentCount = 1024
    /// The room for input that is worth telling the host about, in bytes: a page of which every byte is escaped.
    public static let inputChunk = 2 * 4096 + 16

    private struct State {
        var interruptEnable: UInt8 = 0
        var lineControl: UInt8 = 0
        var modemControl: UInt8 = 0
        var fifoControl: UInt8 = 0
        var scratch: UInt8 = 0
        var divisor: UInt16 = 12
        var transmitInterrupt = false
        var level = false
        var output = ByteQueue()
        /// Bytes that the guest has sent in all.
        var sent: UInt64 = 0
        /// The last of them, taken or not: the byte that was sent as number n is at n modulo the count.
        var recent: [UInt8] = []
        /// The receiver's FIFO, and what waits on the host's side of the line.
        var received = ByteQueue()
        var input = ByteQueue()
        /// Whether the guest ever said how it wants the modem lines.
        var controlsModem = false
        var overrun = false

        var isLoopback: Bool { modemControl & 0x10 != 0 }
        var hasRoom: Bool { output.count < Serial16550.capacity }
    }

    private enum LineStatus {
        static let dataReady: UInt8 = 0x01
        static let overrun: UInt8 = 0x02
        static let transmitterEmpty: UInt8 = 0x60
    }

    private let state = Monitor(State())
    private let setInterrupt: @Sendable (Bool) -> Void
    private let outputReady: @Sendable () -> Void
    private let inputReady: @Sendable () -> Void

    /// - Parameters:
    ///   - setInterrupt: sets the level of its interrupt line; called under the device's lock.
    ///   - outputReady: called when bytes begin to wait for the host; must not block.
    ///   - inputReady: called when the guest has made room for ``inputChunk`` bytes again, and when it has taken all
    ///     that waited; must not block.
    init(
        setInterrupt: @escaping @Sendable (Bool) -> Void, outputReady: @escaping @Sendable () -> Void,
        inputReady: @escaping @Sendable () -> Void = {}
    ) {
        self.setInterrupt = setInterrupt
        self.outputReady = outputReady
        self.inputReady = inputReady
    }

    // MARK: the host's side

    /// Takes what the guest sent, at most `limit` bytes.
    public func takeOutput(limit: Int) -> [UInt8] {
        state.withLock { state in
            let wasFull = state.output.count >= Self.capacity
            let bytes = state.output.take(limit)
            if wasFull, !bytes.isEmpty {
                state.transmitInterrupt = true
                updateInterrupt(&state)
            }
            return bytes
        }
    }

    /// How many bytes the guest has sent so far, taken or not.
    public var sentCount: UInt64 { state.withLock { $0.sent } }

    /// Bytes that ``receive(_:)`` would take now.
    public var inputSpace: Int { state.withLock { Self.capacity - $0.input.count } }

    /// Bytes that the guest has not taken yet.
    public var waitingInput: Int { state.withLock { $0.input.count + $0.received.count } }

    /// The last 1024 bytes that the guest sent.
    public var recentOutput: [UInt8] {
        state.withLock { state in
            guard state.recent.count == Self.recentCount else { return state.recent }
            let start = Int(state.sent % UInt64(Self.recentCount))
            return Array(state.recent[start...] + state.recent[..<start])
        }
    }

    /// A line about its registers and queues, for people.
    func describe() -> String {
        state.withLock { state in
            "serial: sent \(state.sent), \(state.output.count) wait for the host; for the guest "
                + "\(state.input.count) on the line, \(state.received.count) in the receiver; "
                + "ier=\(hex(UInt64(state.interruptEnable))) mcr=\(hex(UInt64(state.modemControl))) "
                + "fcr=\(hex(UInt64(state.fifoControl))) lcr=\(hex(UInt64(state.lineControl))) "
                + "interrupt \(state.level ? "high" : "low")"
        }
    }

    /// Hands bytes to the guest; what does not fit is refused.
    /// - Returns: how many were taken.
    @discardableResult
    public func receive(_ bytes: [UInt8]) -> Int {
        state.withLock { state in
            let taken = min(bytes.count, Self.capacity - state.input.count)
            state.input.append(bytes[..<taken])
            fillReceiver(&state)
            updateInterrupt(&state)
            return taken
        }
    }

    // MARK: the guest's side

    func read(offset: UInt16, size: Int, by vcpu: any ProcessorContext) -> UInt32 {
        guard size == 1 else { return UInt32.max }
        let (value, roomMade) = state.withLock { state in
            let wasFull = Self.isFull(state.input)
            let waiting = state.received.count
            let value = UInt32(register(offset, &state))
            return (value, wasFull && !Self.isFull(state.input) || waiting > 0 && state.received.isEmpty)
        }
        if roomMade { inputReady() }
        return value
    }

    func write(offset: UInt16, size: Int, value: UInt32, by vcpu: any ProcessorContext) {
        guard size == 1 else { return }
        let (begun, roomMade) = state.withLock { state in
            let waiting = state.output.count
            let wasFull = Self.isFull(state.input)
            set(offset, UInt8(truncatingIfNeeded: value), &state)
            return (waiting == 0 && state.output.count > 0, wasFull && !Self.isFull(state.input))
        }
        if begun { outputReady() }
        if roomMade { inputReady() }
    }

    private static func isFull(_ queue: ByteQueue) -> Bool { capacity - queue.count < inputChunk }

    private func register(_ offset: UInt16, _ state: inout State) -> UInt8 {
        let latch = state.lineControl & 0x80 != 0
        switch offset {
        case 0 where latch: return UInt8(truncatingIfNeeded: state.divisor)
        case 1 where latch: return UInt8(truncatingIfNeeded: state.divisor >> 8)
        case 0:
            let byte = state.received.take(1).first ?? 0
            fillReceiver(&state)
            updateInterrupt(&state)
            return byte
        case 1: return state.interruptEnable
        case 2: return interruptIdentification(&state)
        case 3: return state.lineControl
        case 4: return state.modemControl
        case 5: return lineStatus(&state)
        case 6: return modemStatus(state)
        default: return state.scratch
        }
    }

    private func set(_ offset: UInt16, _ value: UInt8, _ state: inout State) {
        let latch = state.lineControl & 0x80 != 0
        switch offset {
        case 0 where latch: state.divisor = state.divisor & 0xff00 | UInt16(value)
        case 1 where latch: state.divisor = state.divisor & 0x00ff | UInt16(value) << 8
        case 0: transmit(value, &state)
        case 1:
            // Enabling the transmitter interrupt while the transmitter is empty raises it (PC16550D, 8.6.3).
            if value & 2 != 0, state.interruptEnable & 2 == 0 { state.transmitInterrupt = state.hasRoom }
            state.interruptEnable = value & 0x0f
        case 2:
            // Bit 0 gates the others; changing it empties the FIFOs as well (PC16550D, 8.4). What was sent is sent.
            if (value ^ state.fifoControl) & 1 != 0 || value & 3 == 3 { state.received.removeAll() }
            state.fifoControl = value & 1 != 0 ? value : 0
            fillReceiver(&state)
        case 3: state.lineControl = value
        case 4:
            state.modemControl = value & 0x1f
            state.controlsModem = true
            fillReceiver(&state)
        case 7: state.scratch = value
        default: break
        }
        updateInterrupt(&state)
    }

    private func transmit(_ byte: UInt8, _ state: inout State) {
        if state.isLoopback {
            // The transmitter feeds the receiver.
            if state.received.count < Self.fifoSize {
                state.received.append([byte])
            } else {
                state.overrun = true
            }
        } else if state.hasRoom {
            state.output.append([byte])
            if state.recent.count < Self.recentCount {
                state.recent.append(byte)
            } else {
                state.recent[Int(state.sent % UInt64(Self.recentCount))] = byte
            }
            state.sent += 1
        }
        // Sent at once: empty again as long as the ring has room. A byte written in spite of a full ring is lost.
        state.transmitInterrupt = state.hasRoom
    }

    /// Moves bytes from the line into the receiver, if the guest lets them come.
    private func fillReceiver(_ state: inout State) {
        let isHeld = state.controlsModem && state.modemControl & 0x02 == 0
        if state.isLoopback || isHeld || state.received.count >= Self.fifoSize || state.input.isEmpty {
            return
        }
        state.received.append(state.input.take(Self.fifoSize - state.received.count))
    }

    private func lineStatus(_ state: inout State) -> UInt8 {
        var status: UInt8 = 0
        if !state.received.isEmpty { status |= LineStatus.dataReady }
        if state.hasRoom { status |= LineStatus.transmitterEmpty }
        if state.overrun {
            status |= LineStatus.overrun
            state.overrun = false
            updateInterrupt(&state)
        }
        return status
    }

    private func modemStatus(_ state: State) -> UInt8 {
        // In loopback the outputs appear as inputs: DTR as DSR, RTS as CTS, OUT1 as RI, OUT2 as DCD.
        guard state.isLoopback else { return 0xB0 }
        let control = state.modemControl
        return (control & 1) << 5 | (control & 2) << 3 | (control & 4) << 4 | (control & 8) << 4
    }

    private func interruptIdentification(_ state: inout State) -> UInt8 {
        let fifos: UInt8 = state.fifoControl & 1 != 0 ? 0xC0 : 0
        if state.interruptEnable & 4 != 0, state.overrun { return fifos | 0x06 }
        if state.interruptEnable & 1 != 0, !state.received.isEmpty { return fifos | 0x04 }
        if state.interruptEnable & 2 != 0, state.transmitInterrupt {
            state.transmitInterrupt = false
            updateInterrupt(&state)
            return fifos | 0x02
        }
        return fifos | 0x01
    }

    private func updateInterrupt(_ state: inout State) {
        let wanted =
            state.interruptEnable & 4 != 0 && state.overrun
            || state.interruptEnable & 1 != 0 && !state.received.isEmpty
            || state.interruptEnable & 2 != 0 && state.transmitInterrupt
        guard wanted != state.level else { return }
        state.level = wanted
        setInterrupt(wanted)
    }
}

/// A queue of bytes that gives up its memory when it has been large and is empty.
struct ByteQueue {
    private var bytes: [UInt8] = []
    private var head = 0
    var count: Int { bytes.count - head }
    var isEmpty: Bool { count == 0 }

    mutating func append(_ new: some Collection<UInt8>) { bytes.append(contentsOf: new) }

    mutating func take(_ limit: Int) -> [UInt8] {
        let end = head + min(max(limit, 0), count)
        let taken = Array(bytes[head..<end])
        head = end
        if head == bytes.count {
            bytes.removeAll(keepingCapacity: bytes.count <= 4096)
            head = 0
        } else if head >= 4096 {
            bytes.removeFirst(head)
            head = 0
        }
        return taken
    }

    mutating func removeAll() {
        bytes.removeAll()
        head = 0
    }
}
