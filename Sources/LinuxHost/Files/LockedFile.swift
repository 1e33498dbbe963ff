internal import CLinux
internal import Glibc

/// Files whose lock says that their owner lives, and that the owner, or who finds it gone, removes.
package enum LockedFile {
    /// Attempts until somebody who removes the file again and again is too many.
    private static let attempts = 100
    /// Microseconds between two attempts at a lock that somebody else has.
    private static let pause: UInt32 = 2000

    /// Creates or takes over a file and locks it (flock(2), LOCK_EX). One that is removed between open and lock is nobody's, so it is
    /// looked at again.
    /// - Parameter patience: attempts at a lock that somebody else has: who only looks whether its owner lives has it for a moment.
    /// - Returns: nil when somebody else holds it.
    package static func claim(_ path: String, patience: Int = 0) throws(LinuxError) -> OwnedDescriptor? {
        for attempt in 0..<Self.attempts {
            let file = try OwnedDescriptor.open(path, flags: O_RDWR | O_CREAT | O_NOFOLLOW, mode: 0o600)
            guard flock(file.number, LOCK_EX | LOCK_NB) == 0 else {
                guard errno == EWOULDBLOCK else { throw .current("flock", path) }
                if attempt >= patience { return nil }
                usleep(pause)
                continue
            }
            if isStill(file.number, at: path) { return file }
        }
        throw LinuxError(operation: "flock", code: EBUSY, subject: path)
    }

    private static func isStill(_ number: Int32, at path: String) -> Bool {
        var (open, named) = (stat(), stat())
        // SAFETY: live locals; the path is a NUL-terminated copy.
        guard unsafe fstat(number, &open) == 0, unsafe lstat(path, &named) == 0 else { return false }
        return open.st_ino == named.st_ino && open.st_dev == named.st_dev
    }
}
