public import LinuxHost
import CLinux
internal import Glibc

/// The programs that belong to `mingle`.
public enum Companion: String, Sendable {
    case vmm = "mingle-vmm"
    case broker = "mingle-broker"

    /// The variable that names another program.
    public var variable: String { self == .vmm ? "MINGLE_VMM" : "MINGLE_BROKER" }

    /// Finds it: by its variable, else beside the running executable.
    public func path() throws(SupportError) -> String {
        if let path = Environment.value(variable) {
            guard SystemCall.isAccessible(path, mode: X_OK) else {
                throw .requirement(
                    problem: "$\(variable) is '\(path)', which cannot be executed",
                    advice: "correct the variable or unset it")
            }
            return path
        }
        let own = try SystemCall.linkTarget("/proc/self/exe")
        let folder = own.lastIndex(of: "/").map { String(own[..<$0]) } ?? ""
        let path = folder + "/" + rawValue
        guard SystemCall.isAccessible(path, mode: X_OK) else {
            throw .requirement(
                problem: "\(path) is missing or cannot be executed",
                advice: "install \(rawValue) beside mingle, or name it in $\(variable)")
        }
        return path
    }
}

/// The program `mingle-vmm`.
public enum VMMProgram {
    /// The variable that names another program.
    public static let variable = Companion.vmm.variable

    /// Finds it: `$MINGLE_VMM`, else beside the running executable.
    public static func path() throws(SupportError) -> String { try Companion.vmm.path() }

    /// Replaces this process by the program: same process number, same descriptors. Returns only by throwing.
    public static func execute(_ path: String, arguments: [String]) throws(SupportError) -> Never {
        // SAFETY: strdup copies each word; on success the process image is replaced, on failure the process ends soon
        // after, so that nothing needs to be freed. The array ends with nil, as execv asks.
        var words = unsafe (["mingle-vmm"] + arguments).map { unsafe strdup($0) }
        unsafe words.append(nil)
        // Where Swift's toolchain is installed, its handler of crashes asks for calls that no filter allows, and takes the crash's
        // own line with it.
        _ = unsafe setenv("SWIFT_BACKTRACE", "enable=no", 1)
        _ = unsafe execv(path, words)
        throw .systemCall(operation: "execute", subject: path, code: errno)
    }

    /// Lets a descriptor survive ``execute(_:arguments:)`` and gives the path by which the VMM opens it.
    public static func inherited(_ descriptor: consuming OwnedDescriptor) throws(SupportError) -> String {
        let number = descriptor.release()
        let result = mingle_fcntl(number, F_SETFD, 0)
        guard result >= 0 else {
            throw .systemCall(operation: "pass on", subject: "descriptor \(number)", code: -result)
        }
        return "/proc/self/fd/\(number)"
    }
}

/// Bytes in a file without a name, for what is made for one guest only.
public enum AnonymousFile {
    /// Creates a memfd that holds `bytes`.
    public static func make(_ name: String, holding bytes: [UInt8]) throws(SupportError) -> OwnedDescriptor {
        // SAFETY: the bridged string is NUL-terminated and outlives the call.
        let number = unsafe mingle_memfd_create(name, UInt32(MFD_CLOEXEC))
        guard number >= 0 else {
            throw .systemCall(operation: "create memory file", subject: name, code: -number)
        }
        let descriptor = OwnedDescriptor(adopting: number)
        var written = 0
        while written < bytes.count {
            // SAFETY: the source is the rest of `bytes`, whose size is what is passed.
            let count = unsafe bytes.withUnsafeBytes { buffer in
                unsafe pwrite(
                    number, buffer.baseAddress.map { unsafe $0 + written }, buffer.count - written, written)
            }
            if count > 0 { written += count }
            if count <= 0, errno != EINTR {
                throw .systemCall(operation: "fill memory file", subject: name, code: errno)
            }
        }
        return descriptor
    }
}
