import CLinux
import Glibc
import GuestMemory
import Hypervisor

/// The guest's serial line on the host: where its bytes go, where they come from, and the escape key.
struct Console {
    /// What a byte typed asks of the VMM.
    enum Request { case quit }

    private static let escape: UInt8 = 0x01  // Ctrl-A
    private static let chunk = 4096

    private let serial: Serial16550
    private let file: OutputFile?
    private let terminal: RawTerminal?
    /// How an input that is no terminal is put on the guest's terminal line; nil passes bytes as they are.
    private var pipe: PipeEncoder?
    private var paced = PacedInput()
    /// A piped input waits until the guest's terminal line takes any bytes.
    var mayRead: Bool
    private(set) var inputDescriptor: Int32?
    private(set) var outputDescriptor: Int32?
    private var pending: ArraySlice<UInt8> = []
    /// What the guest says before a command or script in it begins, the kernel's messages and init's, is not its output: it
    /// goes to standard error. Nil where there is no such beginning.
    private var bootDescriptor: Int32?
    private var isBootMessage = false
    private var takenCount: UInt64 = 0
    /// Until when standard error may be slow with what waits for it, and how long each piece may take, nanoseconds.
    private var bootDeadline: UInt64 = 0
    private static let bootPatience: UInt64 = 1_000_000_000
    private var dropsBootMessages = false
    /// What was taken behind the last of it.
    private var following: ArraySlice<UInt8> = []
    private let timeline: Timeline
    private var escaped = false
    /// Nobody reads what the guest says any more.
    private(set) var isBroken = false

    init(_ options: Options, serial: Serial16550, timeline: Timeline) throws(LinuxError) {
        self.serial = serial
        self.timeline = timeline
        pipe = options.endOfFileToGuest ? PipeEncoder() : nil
        mayRead = pipe == nil
        switch options.serial {
        case .stdio:
            file = nil
            terminal = try RawTerminal.takeOver(stateDirectory: options.stateDirectory)
            // A terminal that is not ours (a background job) is not read either.
            inputDescriptor = terminal == nil && isatty(0) == 1 ? nil : 0
            outputDescriptor = 1
            bootDescriptor = pipe == nil ? nil : 2
        case .file(let path):
            file = try OutputFile(path)
            terminal = nil
            inputDescriptor = nil
            outputDescriptor = file?.descriptor.number
        case .none:
            file = nil
            terminal = nil
            inputDescriptor = nil
            outputDescriptor = nil
        }
    }

    /// Whether a write is worth waiting for.
    mutating func hasOutput() -> Bool {
        if pending.isEmpty { takeOutput() }
        // Nobody reads standard error: that must not keep the command's output back.
        if isBootMessage, !pending.isEmpty, monotonicNanoseconds() >= bootDeadline {
            dropsBootMessages = true
        }
        while dropsBootMessages, isBootMessage, !pending.isEmpty { takeOutput() }
        if target == nil {
            // Nobody listens: keep the line flowing.
            while !pending.isEmpty { takeOutput() }
        }
        return !pending.isEmpty
    }

    /// When to ask again whether output waits, though nothing happened; nil for never.
    var nextLook: UInt64? { isBootMessage && !pending.isEmpty ? bootDeadline : nil }

    /// Where the bytes that wait go.
    var target: Int32? { isBootMessage ? bootDescriptor : outputDescriptor }

    private mutating func takeOutput() {
        isBootMessage = false
        (pending, following) = (following, [])
        guard pending.isEmpty else { return }
        pending = serial.takeOutput(limit: Self.chunk)[...]
        guard bootDescriptor != nil else { return }
        let start = takenCount
        takenCount += UInt64(pending.count)
        // Asked only now: as long as nothing has begun, all that was taken came before.
        let bootCount = Int(min(max(timeline.bootMessages ?? .max, start) - start, UInt64(pending.count)))
        following = pending.dropFirst(bootCount)
        if bootCount > 0 {
            isBootMessage = true
            pending = pending.prefix(bootCount)
            bootDeadline = monotonicNanoseconds() + Self.bootPatience
        } else {
            (pending, following) = (following, [])
        }
    }

    /// Whether the guest could take more input.
    var wantsInput: Bool {
        inputDescriptor != nil && mayRead && serial.inputSpace >= Serial16550.inputChunk
            && paced.count < Serial16550.inputChunk
    }

    /// Hands on piped input that waits for its turn.
    /// - Returns: when to call again at the latest, in monotonic nanoseconds; nil: after the next event.
    mutating func feedInput() -> UInt64? { paced.feed(serial) }

    /// Writes once; the descriptor was ready.
    mutating func writeOutput() {
        guard let descriptor = target else { return }
        guard let count = HostIO.write(descriptor, pending) else {
            if isBootMessage {
                // Without anybody to read what was said at the start, the guest is still wanted.
                pending = []
                return
            }
            outputDescriptor = nil
            isBroken = true
            return
        }
        pending = pending.dropFirst(count)
    }

    /// Reads once; the descriptor was ready.
    mutating func readInput() -> Request? {
        guard let descriptor = inputDescriptor else { return nil }
        switch HostIO.read(descriptor, limit: Self.chunk) {
        case .nothing: return nil
        case .endOfFile:
            inputDescriptor = nil
            if let pipe, terminal == nil { paced.append(pipe.end()) }
            return nil
        case .bytes(let bytes):
            if terminal != nil { return type(bytes) }
            if let encoded = pipe?.encode(bytes) { paced.append(encoded) } else { serial.receive(bytes) }
            return nil
        }
    }

    /// Keys of a terminal: Ctrl-A X quits, Ctrl-A Ctrl-A (or A) is Ctrl-A, all else is the guest's.
    private mutating func type(_ keys: [UInt8]) -> Request? {
        var typed: [UInt8] = []
        var request: Request?
        for key in keys {
            switch (escaped, key) {
            case (false, Self.escape): escaped = true
            case (false, _): typed.append(key)
            case (true, UInt8(ascii: "x")), (true, UInt8(ascii: "X")):
                request = .quit
                escaped = false
            case (true, Self.escape), (true, UInt8(ascii: "a")):
                typed.append(Self.escape)
                escaped = false
            case (true, _): escaped = false
            }
        }
        serial.receive(typed)
        return request
    }

    /// Writes what the guest said last, for at most `seconds` if the reader is slow.
    mutating func flush(seconds: Double) {
        let deadline = monotonicNanoseconds() + UInt64(seconds * 1e9)
        while hasOutput(), let descriptor = target {
            let now = monotonicNanoseconds()
            guard now < deadline else { return }
            let patience = isBootMessage ? min(deadline - now, 200_000_000) : deadline - now
            let ready = HostIO.poll([(descriptor, .output)], timeout: Int32(patience / 1_000_000 + 1))
            if !ready[0].isEmpty { writeOutput() } else if isBootMessage { dropsBootMessages = true }
        }
    }
}

/// The file that `--serial file:PATH` names, made anew.
private final class OutputFile {
    let descriptor: OwnedDescriptor
    init(_ path: String) throws(LinuxError) {
        descriptor = try .open(path, flags: O_WRONLY | O_CREAT | O_TRUNC, mode: 0o644)
    }
}

/// Puts a stream of any bytes through the guest's terminal, whose only special characters are end-of-file (0x04) and
/// literal-next (0x16): see guests/linux/README.md. Ends with the guest's reader seeing end of file.
struct PipeEncoder {
    private static let endOfFile: UInt8 = 0x04
    private static let literal: UInt8 = 0x16
    /// A line longer than this is handed over in pieces: the guest's terminal keeps 4095 bytes of it.
    private static let pieceLimit = 2048
    /// Bytes since the last newline or hand-over.
    private var pending = 0

    mutating func encode(_ bytes: [UInt8]) -> [UInt8] {
        var encoded: [UInt8] = []
        encoded.reserveCapacity(bytes.count + 16)
        for byte in bytes {
            if byte == Self.endOfFile || byte == Self.literal { encoded.append(Self.literal) }
            encoded.append(byte)
            pending = byte == UInt8(ascii: "\n") ? 0 : pending + 1
            if pending == Self.pieceLimit {
                encoded.append(Self.endOfFile)
                pending = 0
            }
        }
        return encoded
    }

    /// Hands over what is left, then ends the input.
    func end() -> [UInt8] { pending > 0 ? [Self.endOfFile, Self.endOfFile] : [Self.endOfFile] }
}
