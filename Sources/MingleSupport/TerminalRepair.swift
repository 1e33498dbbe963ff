import LinuxHost
import CLinux
import Glibc
public import VMMProtocol

extension SavedTerminal {
    /// Reads the text of a file. `path` is only for the error.
    public init(text: String, path: String) throws(SupportError) {
        guard let saved = SavedTerminal(text: text) else {
            throw .malformedRecord(path: path, reason: "it does not hold saved terminal settings")
        }
        guard saved.settings.count == MemoryLayout<termios>.size else {
            throw .malformedRecord(
                path: path,
                reason:
                    "\(saved.settings.count) bytes of terminal settings, not \(MemoryLayout<termios>.size)")
        }
        self = saved
    }
}

/// Puts a terminal right that a killed guest left in raw mode.
public struct TerminalRepair: Sendable {
    /// What was done.
    public enum Outcome: Equatable, Sendable {
        /// No guest left anything behind on this terminal.
        case nothingSaved
        /// A guest that lives has the terminal.
        case inUse
        /// Settings were saved, but the terminal is not in raw mode any more; the file was emptied.
        case notNeeded
        case repaired
    }

    private let directory: StateDirectory

    public init(directory: StateDirectory) { self.directory = directory }

    /// Repairs the terminal among standard input, error and output, if there is one and we are in its foreground:
    /// in the background its settings are somebody else's business.
    public func repairOwnTerminal() throws(SupportError) -> Outcome {
        guard try directory.isPresent() else { return .nothingSaved }
        for descriptor: Int32 in [0, 2, 1] {
            guard let device = Self.device(of: descriptor) else { continue }
            return tcgetpgrp(descriptor) == getpgrp() ? try repair(descriptor, device: device) : .nothingSaved
        }
        return .nothingSaved
    }

    /// Repairs the terminal `device` that is open as `terminal`.
    func repair(_ terminal: Int32, device: String) throws(SupportError) -> Outcome {
        let path = directory.terminalPath + "/" + SavedTerminal.fileName(device: device)
        guard case .success(let number) = SystemCall.open(path, flags: O_RDWR | O_NOFOLLOW | O_NONBLOCK)
        else {
            return .nothingSaved
        }
        let descriptor = OwnedDescriptor(adopting: number)
        guard (try? descriptor.lock()) == true else { return .inUse }
        guard case .success(let bytes) = SystemCall.read(descriptor.number, count: 65536, at: 0) else {
            return .nothingSaved
        }
        if bytes.isEmpty { return .nothingSaved }
        // Whatever it holds: whoever wrote it is gone. The file stays: a guest in the background may have it open.
        _ = SystemCall.truncate(descriptor.number)
        let saved = try SavedTerminal(text: String(decoding: bytes, as: UTF8.self), path: path)
        guard saved.device == device, Self.isRaw(terminal) else { return .notNeeded }
        try Self.apply(saved.settings, to: terminal)
        return .repaired
    }

    /// The path of the terminal that is open as `descriptor`, or nil if it is none.
    static func device(of descriptor: Int32) -> String? {
        var name = [CChar](repeating: 0, count: 256)
        // SAFETY: the buffer is ours and one byte less than its size is passed, so that its last byte stays NUL.
        guard unsafe ttyname_r(descriptor, &name, name.count - 1) == 0 else { return nil }
        return String(decoding: name.prefix { $0 != 0 }.map { UInt8(bitPattern: $0) }, as: UTF8.self)
    }

    /// The present settings as bytes.
    static func settings(of terminal: Int32) -> [UInt8]? {
        var raw = termios()
        // SAFETY: `raw` is a whole struct termios of ours.
        guard unsafe tcgetattr(terminal, &raw) == 0 else { return nil }
        // SAFETY: termios is plain data; its bytes are copied while it lives.
        return unsafe withUnsafeBytes(of: &raw) { unsafe Array($0) }
    }

    private static func isRaw(_ terminal: Int32) -> Bool {
        var raw = termios()
        // SAFETY: `raw` is a whole struct termios of ours.
        return unsafe tcgetattr(terminal, &raw) == 0 && raw.c_lflag & tcflag_t(ICANON) == 0
    }

    /// Sets `terminal` to settings that ``settings(of:)`` gave.
    static func apply(_ settings: [UInt8], to terminal: Int32) throws(SupportError) {
        var raw = termios()
        // SAFETY: the initialiser above made sure that there are as many bytes as termios has, and copyBytes
        // traps otherwise; any bit pattern is a valid termios.
        unsafe withUnsafeMutableBytes(of: &raw) { unsafe $0.copyBytes(from: settings) }
        // SAFETY: `raw` is a whole struct termios of ours.
        guard unsafe tcsetattr(terminal, TCSADRAIN, &raw) == 0 else {
            throw .systemCall(operation: "repair", subject: "the terminal", code: errno)
        }
    }
}
