import CLinux
import Glibc

/// A file of the state directory that says that we live: locked as long as we do, so that whoever finds it unlocked
/// knows that its owner is gone. Removed at the end, but by a confined process, which removes nothing: that is left to whoever
/// finds it unlocked.
package struct RegisteredFile: ~Copyable {
    private var descriptor: OwnedDescriptor
    private let path: String

    /// Creates or takes over the file and locks it.
    /// - Returns: nil when somebody else holds it.
    package static func claim(_ path: String) throws(LinuxError) -> RegisteredFile? {
        // It may be locked by somebody who only looks whether its owner lives, for a moment.
        guard let descriptor = try LockedFile.claim(path, patience: 25) else { return nil }
        return RegisteredFile(descriptor: descriptor, path: path)
    }

    private init(descriptor: consuming OwnedDescriptor, path: String) {
        self.descriptor = descriptor
        self.path = path
    }

    /// Replaces the text. Readers see the old one or the new one, whole: it is written to a file beside ours, which is
    /// locked before it takes our name. When that fails (a full disk) the old text stays. What a killed owner leaves of it
    /// goes with the record (`GuestRegistry`).
    package mutating func write(_ text: String) throws(LinuxError) {
        let slash = path.lastIndex(of: "/").map { path.index(after: $0) } ?? path.startIndex
        let beside = path[..<slash] + "." + path[slash...] + ".new"
        let file = try OwnedDescriptor.open(
            String(beside), flags: O_RDWR | O_CREAT | O_TRUNC | O_NOFOLLOW, mode: 0o600)
        do throws(LinuxError) {
            guard try file.lock(String(beside)) else {
                throw LinuxError(operation: "flock", code: EWOULDBLOCK, subject: String(beside))
            }
            let bytes = Array(text.utf8)
            // SAFETY: the array is alive for the call; paths are NUL-terminated copies for the time of the calls.
            let count = unsafe pwrite(file.number, bytes, bytes.count, 0)
            guard count == bytes.count else {
                throw LinuxError(operation: "write", code: count < 0 ? errno : ENOSPC, subject: path)
            }
            guard unsafe rename(String(beside), path) == 0 else { throw .current("rename", path) }
        } catch {
            _ = unsafe unlink(String(beside))
            throw error
        }
        descriptor = file
    }

    /// Replaces the text by one of the same length, in place: that takes no path, and no room. Who reads at the same moment may see
    /// some bytes of each, and finds out by where they differ.
    package func overwrite(_ text: String) throws(LinuxError) {
        let bytes = Array(text.utf8)
        guard try descriptor.fileSize() == UInt64(bytes.count) else {
            throw LinuxError(operation: "pwrite", code: EINVAL, subject: path)
        }
        // SAFETY: the array is alive for the call.
        let count = unsafe pwrite(descriptor.number, bytes, bytes.count, 0)
        guard count == bytes.count else { throw .current("pwrite", path) }
    }

    deinit {
        // Still locked, so it is ours to remove.
        if !PathAccess.isOver { _ = unsafe unlink(path) }
    }
}
