internal import CLinux
internal import Glibc

/// A file of the state directory that several processes use in turns: it says something while one of them holds its lock, and is
/// empty otherwise. Opened once; nobody removes it.
package struct LeasedFile: ~Copyable {
    private let descriptor: OwnedDescriptor
    private let path: String
    private var isHeld = false

    package init(_ path: String) throws(LinuxError) {
        self.path = path
        descriptor = try .open(path, flags: O_RDWR | O_CREAT | O_NOFOLLOW, mode: 0o600)
    }

    /// Says something, for as long as it is not given back or this process ends.
    /// - Returns: false when another process says something.
    package mutating func write(_ text: String) throws(LinuxError) -> Bool {
        if !isHeld {
            guard try descriptor.lock(path) else { return false }
            isHeld = true
        }
        let bytes = Array(text.utf8)
        try descriptor.truncate(to: 0)
        // SAFETY: the array is alive for the call.
        let count = unsafe pwrite(descriptor.number, bytes, bytes.count, 0)
        guard count == bytes.count else {
            throw LinuxError(operation: "write", code: count < 0 ? errno : ENOSPC, subject: path)
        }
        return true
    }

    /// Says nothing any more.
    package mutating func giveBack() {
        guard isHeld else { return }
        isHeld = false
        try? descriptor.truncate(to: 0)
        descriptor.unlock()
    }

    deinit { if isHeld { try? descriptor.truncate(to: 0) } }
}
