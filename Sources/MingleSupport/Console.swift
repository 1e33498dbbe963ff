import LinuxHost
import CLinux
import Glibc
public import VMMProtocol

/// Messages for people on standard error, one line each.
public struct Console: Sendable {
    private let level: LogLevel

    /// Shows messages of `level` and worse.
    public init(level: LogLevel) { self.level = level }

    /// Shows one message if its level asks for it.
    public func log(_ level: LogLevel, _ message: @autoclosure () -> String) {
        if level >= self.level { Self.write("mingle: \(level.rawValue): \(message())") }
    }

    /// Writes one line to standard error. If that fails, nobody is there to be told. What guests' VMMs said may be in it, and
    /// moves no cursor.
    public static func write(_ line: String) { show(OneLine.lines(line) + "\n") }

    /// Writes text to standard error as it is.
    public static func show(_ text: String) {
        var bytes = Array(text.utf8)[...]
        while !bytes.isEmpty {
            // SAFETY: the source is the rest of `bytes`, whose size is what is passed.
            let count = unsafe bytes.withUnsafeBytes { buffer in
                guard let base = buffer.baseAddress else { return 0 }
                return unsafe CLinux.write(2, base, buffer.count)
            }
            if count < 0, errno == EINTR { continue }
            guard count > 0 else { return }
            bytes = bytes.dropFirst(count)
        }
    }

    /// Whether a descriptor of this process is a terminal.
    public static func isTerminal(_ descriptor: Int32) -> Bool { isatty(descriptor) == 1 }

    /// The rows and columns of the terminal that is open as `descriptor`; nil if it is none.
    public static func terminalSize(_ descriptor: Int32) -> (rows: UInt16, columns: UInt16)? {
        var rows: UInt16 = 0
        var columns: UInt16 = 0
        // SAFETY: both numbers are ours and outlive the call.
        return unsafe mingle_winsize(descriptor, &rows, &columns) == 0 ? (rows, columns) : nil
    }

    /// The number of this process, which the guest's VMM will keep.
    public static var process: Int32 { getpid() }
}

/// Standard output, for results: what cannot be written is an error.
public enum StandardOutput {
    /// Writes text and a newline, all of it. What guests' VMMs said may be in it, and moves no cursor.
    public static func print(_ text: String) throws(SupportError) { try show(OneLine.lines(text) + "\n") }

    /// Writes text as it is, all of it; waits for a slow reader.
    public static func show(_ text: String) throws(SupportError) {
        var rest = Array(text.utf8)[...]
        while !rest.isEmpty {
            // SAFETY: the source is the rest of the bytes, whose size is what is passed.
            let count = unsafe rest.withUnsafeBytes { unsafe CLinux.write(1, $0.baseAddress, $0.count) }
            if count > 0 { rest = rest.dropFirst(count) }
            if count == 0 { throw .systemCall(operation: "write to", subject: "standard output", code: EIO) }
            guard count < 0, errno != EINTR else { continue }
            guard errno == EAGAIN else {
                throw .systemCall(operation: "write to", subject: "standard output", code: errno)
            }
            _ = PollList.events(of: 1, Int16(POLLOUT), milliseconds: -1)
        }
    }
}

/// The signals that `mingle stop` sends.
public enum StopSignal {
    public static let terminate = SIGTERM
    public static let kill = SIGKILL
    /// A process that was stopped goes on.
    public static let goOn = SIGCONT
}
