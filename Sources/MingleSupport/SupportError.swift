internal import GuestMemory
internal import LinuxHost
internal import VMMProtocol

/// What can go wrong in the command line tool before a guest runs. The description is one line that says what was
/// wrong and what to do about it.
public enum SupportError: Error, Equatable, Sendable, CustomStringConvertible {
    /// A size that is not a number with an optional unit, or does not fit 64 bits.
    case invalidSize(text: String)
    /// A guest name that could not be a file name, or is too long.
    case invalidName(text: String)
    /// A serial line destination that is none of stdio, none and file:PATH.
    case invalidSerial(text: String)
    /// The kernel would cut a command line that is longer than its buffer.
    case commandLineTooLong(byteCount: Int, limit: Int)
    /// A control character in a text that has to stay on one line.
    case controlCharacter(option: String, value: UInt8)
    /// A system call failed: the operation, what it was about, and errno.
    case systemCall(operation: String, subject: String, code: Int32)
    /// The state directory cannot be trusted or used; the reason says why and what to do.
    case unusableStateDirectory(path: String, reason: String)
    /// A file of the state directory does not say what it should.
    case malformedRecord(path: String, reason: String)
    /// The kernel, or another image file, is not one that can be booted as asked.
    case unusableImage(path: String, reason: String)
    /// What the image library said, which names file and remedy itself.
    case image(message: String)
    /// A running guest did not answer, or declined; the reason is one line.
    case guest(name: String, reason: String)
    /// A frame broker runs, but does not answer; the reason is one line.
    case brokerBusy(reason: String)
    /// A signal ended it: everything was put away.
    case interrupted(signal: Int32)
    /// Something that a run needs is not there; the advice says how to get it.
    case requirement(problem: String, advice: String)

    public var description: String {
        switch self {
        case .invalidSize(let text):
            "'\(text)' is not a size: write a whole number of bytes with an optional unit, such as 128M or 1G"
        case .invalidName(let text):
            "'\(text)' cannot name a guest: use 1 to \(GuestName.maximumLength) letters, digits, '.', '_' and '-', "
                + "starting with a letter or digit"
        case .invalidSerial(let text):
            "'\(text)' is no serial destination: choose stdio, none or file:PATH"
        case .commandLineTooLong(let byteCount, let limit):
            "the kernel command line has \(byteCount) bytes and at most \(limit) fit: shorten --cmdline"
        case .controlCharacter(let option, let value):
            "\(option) holds a control character (byte \(value)): remove it"
        case .systemCall(let operation, let subject, let code):
            "cannot \(operation) \(subject): \(LinuxError.message(code))"
                + (ProcessLimit.hint(code).map { "; \($0)" } ?? "")
        case .unusableStateDirectory(let path, let reason): "state directory \(path): \(reason)"
        case .malformedRecord(let path, let reason): "\(path): \(reason)"
        case .unusableImage(let path, let reason): "\(path): \(reason)"
        case .image(let message): message
        case .guest(let name, let reason): "guest '\(name)': \(reason)"
        case .brokerBusy(let reason): reason
        case .interrupted(let signal): "ended by signal \(signal)"
        case .requirement(let problem, let advice): "\(problem): \(advice)"
        }
    }
}
