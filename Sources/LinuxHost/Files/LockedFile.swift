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
            guard try file.lock(path) else {
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

    /// Locks the file or directory behind a descriptor (flock(2)). The lock is given back when the last descriptor
    /// of this opening closes.
    /// - Parameters:
    ///   - subject: what is locked, for the error.
    ///   - shared: whether others may have the lock as well, if they share it, too.
    ///   - waits: whether to wait for whoever has it.
    /// - Returns: false when somebody else has it.
    package static func lock(
        _ number: Int32, _ subject: String = "", shared: Bool = false, waits: Bool = false
    ) throws(LinuxError) -> Bool {
        let operation = (shared ? LOCK_SH : LOCK_EX) | (waits ? 0 : LOCK_NB)
        while flock(number, operation) != 0 {
            if errno == EINTR { continue }
            guard errno == EWOULDBLOCK else { throw .current("flock", subject) }
            return false
        }
        return true
    }
}

extension OwnedDescriptor {
    /// As ``LockedFile/lock(_:_:shared:waits:)``.
    package func lock(_ subject: String = "", shared: Bool = false, waits: Bool = false) throws(LinuxError)
        -> Bool
    {
        try LockedFile.lock(number, subject, shared: shared, waits: waits)
    }

    /// Gives the lock back.
    package func unlock() { _ = flock(number, LOCK_UN) }
}
