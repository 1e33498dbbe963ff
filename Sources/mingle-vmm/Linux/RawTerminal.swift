import CLinux
import Glibc
import GuestMemory

/// The terminal on standard input in raw mode: every key goes to the guest. Its settings come back at the end, and are
/// kept in the state directory meanwhile, so that the next start can bring them back if we are killed.
final class RawTerminal {
    private let saved: [UInt8]
    private let record: RegisteredFile?

    /// - Returns: nil when standard input is no terminal, or not ours to change (a background job).
    static func takeOver(stateDirectory: String?) throws(LinuxError) -> RawTerminal? {
        var settings = termios()
        // SAFETY: live locals throughout.
        guard isatty(0) == 1, tcgetpgrp(0) == getpgrp(), unsafe tcgetattr(0, &settings) == 0 else {
            return nil
        }
        let saved = unsafe withUnsafeBytes(of: &settings) { bytes in unsafe bytes.map { $0 } }
        let terminal = RawTerminal(saved, try claim(stateDirectory, saved))
        unsafe cfmakeraw(&settings)
        guard unsafe tcsetattr(0, TCSADRAIN, &settings) == 0 else {
            throw .current("tcsetattr", "standard input")
        }
        return terminal
    }

    private init(_ saved: [UInt8], _ record: consuming RegisteredFile?) {
        self.saved = saved
        self.record = record
    }

    private static func claim(_ stateDirectory: String?, _ saved: [UInt8]) throws(LinuxError)
        -> RegisteredFile?
    {
        guard let stateDirectory, let device = device() else { return nil }
        let name = device.split(separator: "/").joined(separator: "-")
        guard var record = try RegisteredFile.claim("\(stateDirectory)/terminal/\(name)") else { return nil }
        let digits = saved.map { ($0 < 16 ? "0" : "") + String($0, radix: 16) }.joined()
        try record.write("tty=\(device)\nowner_pid=\(getpid())\ntermios=\(digits)\n")
        return record
    }

    private static func device() -> String? {
        var name = [CChar](repeating: 0, count: 256)
        // SAFETY: one byte less than the buffer has, so the last stays NUL.
        guard unsafe ttyname_r(0, &name, name.count - 1) == 0 else { return nil }
        return String(decoding: name.prefix { $0 != 0 }.map { UInt8(bitPattern: $0) }, as: UTF8.self)
    }

    deinit {
        var settings = termios()
        unsafe withUnsafeMutableBytes(of: &settings) { bytes in unsafe bytes.copyBytes(from: saved) }
        // SAFETY: a live local with the bytes that tcgetattr gave.
        _ = unsafe tcsetattr(0, TCSADRAIN, &settings)
    }
}
