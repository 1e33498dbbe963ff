import Glibc
import GuestMemory
import LinuxHost
import Hypervisor
import VMMProtocol

/// The guest's serial line on the host: where its bytes go (``GuestOutput``), where they come from, and the escape key.
struct Console: ~Copyable {
    /// What a byte typed asks of the VMM.
    enum Request { case quit }

    private static let escape: UInt8 = 0x01  // Ctrl-A
    private static let chunk = 4096

    private let serial: Serial16550
    var output: GuestOutput
    let terminal: RawTerminal?
    /// How an input that is no terminal is put on the guest's terminal line; nil passes bytes as they are.
    private var pipe: PipeEncoder?
    private var paced = PacedInput()
    /// A piped input waits until the guest's terminal line takes any bytes.
    var mayRead: Bool
    private var hasInput: Bool
    private var escaped = false

    /// - Parameter file: the log, if the output goes there; it is emptied.
    init(
        _ options: Options, _ file: consuming OutputFile?, serial: Serial16550, timeline: Timeline
    ) throws {
        let output = try GuestOutput(options, file, serial: serial, timeline: timeline)
        let terminal =
            options.serial == .standardStreams ? try RawTerminal(stateDirectory: options.stateDirectory) : nil
        self.serial = serial
        self.output = output
        self.terminal = terminal
        pipe = options.endOfFileToGuest ? PipeEncoder() : nil
        mayRead = pipe == nil
        hasInput = options.serial == .standardStreams
    }

    /// Where to read from, if the guest could take more; else -1. A terminal that is not ours (a background job's) is not read.
    var wantedInput: Int32 {
        let wants =
            hasInput && mayRead && terminal?.isTaken != false && paced.count < Serial16550.inputChunk
            && serial.inputSpace >= Serial16550.inputChunk
        return wants ? 0 : -1
    }

    /// When ``look()`` and ``GuestOutput/hasOutput()`` are due; nil for not before the next event.
    var nextLook: UInt64? {
        [output.nextLook, hasInput ? terminal?.nextLook : nil].compactMap { $0 }.min()
    }

    /// Sees whose the terminal is. One that is gone says so in other ways.
    func look() { try? terminal?.look() }

    /// Handles the signals of job control.
    /// - Returns: false for any other.
    func handle(_ signal: Int32) -> Bool {
        switch signal {
        case SIGTSTP:
            terminal?.giveBack()
            HostIO.stopProcess()
            return true
        case SIGCONT:
            try? terminal?.processContinued()
            return true
        default: return false
        }
    }

    /// Hands on piped input that waits for its turn.
    /// - Returns: when to call again at the latest, in monotonic nanoseconds; nil: after the next event.
    mutating func feedInput() -> UInt64? { paced.feed(serial) }

    /// Reads once; the descriptor was ready.
    mutating func readInput() -> Request? {
        // A shell may have taken the terminal since: that is no end of the input.
        look()
        guard wantedInput == 0 else { return nil }
        switch HostIO.read(0, limit: Self.chunk) {
        case .nothing: return nil
        case .endOfFile:
            look()
            guard wantedInput == 0 else { return nil }
            hasInput = false
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
