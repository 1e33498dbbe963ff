import CLinux
import Glibc
import GuestMemory
import LinuxHost
import VMMProtocol

/// The terminal on standard input: in raw mode, so that every key goes to the guest, as long as it is ours. Its settings come
/// back when it is given up, and are kept in the state directory meanwhile, so that the next start can bring them back if we
/// are killed.
///
/// ```
///  somebody else's --we are in its foreground--> ours, in raw mode
///        ^------- give up, stopped, in the background -------'
/// ```
/// Shells tell nobody that a job which runs already is brought to the foreground, so it is looked for now and then.
final class RawTerminal {
    /// Between two looks whether it has become ours, nanoseconds.
    private static let interval: UInt64 = 250_000_000

    /// What it was set to, for whoever finds us killed; with the path of its device. nil: there is nowhere to say it.
    private var record: LeasedFile?
    private let device: String?
    /// What it was set to before, and what we set it to; nil while it is not in raw mode by us.
    private var settings: (saved: termios, raw: termios)?
    private var nextTry: UInt64 = 0
    private var isGivenUp = false

    /// - Returns: nil when standard input is no terminal.
    init?(stateDirectory: String?) throws(LinuxError) {
        guard isatty(0) == 1 else { return nil }
        device = Self.device()
        if let stateDirectory, let device {
            record = try LeasedFile(
                stateDirectory + "/" + StateFolder.terminal + "/" + SavedTerminal.fileName(device: device))
        } else {
            record = nil
        }
        try look()
    }

    /// Whether keys are ours to read.
    var isTaken: Bool { settings != nil }

    /// When to look again at the latest, in monotonic nanoseconds; nil while it is ours.
    var nextLook: UInt64? { isGivenUp || settings != nil ? nil : nextTry }

    /// Notices if it is ours no more; takes it over, if it is time to look, when it has become so.
    func look() throws(LinuxError) {
        guard !isGivenUp else { return }
        if settings != nil {
            // A shell that took it has set it as it likes.
            if !Self.isOurs { forget() }
            return
        }
        let now = monotonicNanoseconds()
        guard now >= nextTry else { return }
        nextTry = now + Self.interval
        if Self.isOurs { try takeOver() }
    }

    /// This process was stopped and goes on. Whoever had the terminal meanwhile may have set it.
    func processContinued() throws(LinuxError) {
        nextTry = 0
        if settings != nil, !isGivenUp, Self.isOurs { return try takeOver() }
        try look()
    }

    /// In the background, its settings are somebody else's business.
    private static var isOurs: Bool { tcgetpgrp(0) == getpgrp() }

    private func takeOver() throws(LinuxError) {
        var found = termios()
        // SAFETY: live locals throughout.
        guard unsafe tcgetattr(0, &found) == 0 else { return }
        if let settings, Self.bytes(of: found) == Self.bytes(of: settings.raw) { return }
        var raw = found
        unsafe cfmakeraw(&raw)
        try keep(found)
        settings = (found, raw)
        guard unsafe tcsetattr(0, TCSANOW, &raw) == 0 else { throw .current("tcsetattr", "standard input") }
    }

    /// Gives it back as it was; it may be taken again.
    func giveBack() {
        guard let settings else { return }
        defer { forget() }
        var saved = settings.saved
        // SAFETY: a live local with what tcgetattr gave. It is not waited for what is still to be shown: a terminal may stall.
        if Self.isOurs { _ = unsafe tcsetattr(0, TCSANOW, &saved) }
    }

    private func forget() {
        settings = nil
        record?.giveBack()
        nextTry = 0
    }

    /// Gives it back for good.
    func giveUp() {
        giveBack()
        isGivenUp = true
    }

    private func keep(_ saved: termios) throws(LinuxError) {
        guard let device else { return }
        let text = SavedTerminal(device: device, owner: getpid(), settings: Self.bytes(of: saved)).text
        // False when another guest has it, which shall put it right.
        _ = try record?.write(text)
    }

    private static func bytes(of value: termios) -> [UInt8] {
        // SAFETY: plain data, copied while it lives.
        unsafe withUnsafeBytes(of: value) { bytes in unsafe bytes.map { $0 } }
    }

    private static func device() -> String? {
        var name = [CChar](repeating: 0, count: 256)
        // SAFETY: one byte less than the buffer has, so the last stays NUL.
        guard unsafe ttyname_r(0, &name, name.count - 1) == 0 else { return nil }
        return String(decoding: name.prefix { $0 != 0 }.map { UInt8(bitPattern: $0) }, as: UTF8.self)
    }

    deinit { giveBack() }
}
