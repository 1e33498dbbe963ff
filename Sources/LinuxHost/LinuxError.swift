internal import CLinux
internal import Glibc

/// A system call that failed: what was attempted, on what, and errno.
public struct LinuxError: Error, Equatable, Sendable, CustomStringConvertible {
    /// The call, as its man page is named ("mmap", "KVM_CREATE_VM").
    public let operation: String
    /// errno, as the kernel gave it.
    public let code: Int32
    /// What it was done to, if that helps ("128 MiB of guest RAM").
    public let subject: String

    public init(operation: String, code: Int32, subject: String = "") {
        self.operation = operation
        self.code = code
        self.subject = subject
    }

    public var description: String {
        let what = subject.isEmpty ? operation : "\(operation) (\(subject))"
        let startsSomething = ["pthread_create", "posix_spawn"].contains(operation) && code == EAGAIN
        let hint = startsSomething ? ProcessLimit.startHint() : ProcessLimit.hint(code)
        return "\(what): \(Self.message(code)) (errno \(code))" + (hint.map { "; \($0)" } ?? "")
    }

    /// The kernel had no memory for it: it may go well later.
    public var isForWantOfMemory: Bool { code == ENOMEM || code == EAGAIN }

    /// The text of an errno, thread-safe.
    public static func message(_ code: Int32) -> String {
        // SAFETY: strerrordesc_np gives a constant string of the C library, or NULL for an unknown number.
        guard let text = unsafe strerrordesc_np(code) else { return "error \(code)" }
        return unsafe String(cString: text)
    }

    /// The current errno with a name for the call that set it.
    public static func current(_ operation: String, _ subject: String = "") -> LinuxError {
        LinuxError(operation: operation, code: errno, subject: subject)
    }
}

/// Turns the result of a CLinux wrapper (a value, or -errno) into a value or an error.
@discardableResult
public func checked(_ result: Int32, _ operation: String, _ subject: @autoclosure () -> String = "")
    throws(LinuxError) -> Int32
{
    guard result >= 0 else { throw LinuxError(operation: operation, code: -result, subject: subject()) }
    return result
}
