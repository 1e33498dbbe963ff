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
        // A file that is removed between open and lock is nobody's: look again. One that is locked may be locked by
        // somebody who only looks whether its owner lives, for a moment.
        for attempt in 0..<100 {
            let descriptor = try OwnedDescriptor.open(path, flags: O_RDWR | O_CREAT | O_NOFOLLOW, mode: 0o600)
            if flock(descriptor.number, LOCK_EX | LOCK_NB) != 0 {
                if errno == EWOULDBLOCK, attempt >= 25 { return nil }
                if errno == EWOULDBLOCK {
                    usleep(2000)
                    continue
                }
                throw .current("flock", path)
            }
            if isStill(descriptor.number, at: path) {
                return RegisteredFile(descriptor: descriptor, path: path)
            }
        }
        throw LinuxError(operation: "flock", code: EBUSY, subject: path)
    }

    private init(descriptor: consuming OwnedDescriptor, path: String) {
        self.descriptor = descriptor
        self.path = path
    }

    private static func isStill(_ number: Int32, at path: String) -> Bool {
        var (open, named) = (stat(), stat())
        // SAFETY: live locals; the path is a NUL-terminated copy.
        guard unsafe fstat(number, &open) == 0, unsafe lstat(path, &named) == 0 else { return false }
        return open.st_ino == named.st_ino && open.st_dev == named.st_dev
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
            guard flock(file.number, LOCK_EX | LOCK_NB) == 0 else { throw .current("flock", String(beside)) }
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
