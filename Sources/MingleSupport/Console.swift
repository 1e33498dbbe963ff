import CLinux

/// How much is told on standard error.
public enum LogLevel: String, CaseIterable, Comparable, Sendable {
    case trace, debug, info, warning, error

    public static func < (left: LogLevel, right: LogLevel) -> Bool { left.rank < right.rank }

    private var rank: Int { Self.allCases.firstIndex(of: self) ?? 0 }
}

/// Messages for people on standard error, one line each.
public struct Console: Sendable {
    private let level: LogLevel

    /// Shows messages of `level` and worse.
    public init(level: LogLevel) { self.level = level }

    /// Shows one message if its level asks for it.
    public func log(_ level: LogLevel, _ message: @autoclosure () -> String) {
        if level >= self.level { Self.write("mingle: \(level.rawValue): \(message())") }
    }

    /// Writes one line to standard error. If that fails, nobody is there to be told.
    public static func write(_ line: String) { show(line + "\n") }

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

/// The signals that `mingle stop` sends.
public enum StopSignal {
    public static let terminate = SIGTERM
    public static let kill = SIGKILL
}
