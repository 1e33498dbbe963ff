internal import CLinux
internal import Glibc

/// Whether a user's number proves who the user is.
///
/// In a user namespace all users that have no number there share one, the overflow user (user_namespaces(7)): a file, or a
/// process, that seems to be of that user may be anybody's.
package struct UserNumbers: Equatable, Sendable {
    let own: UInt32
    let overflow: UInt32
    /// Every user has a number in this namespace.
    let isComplete: Bool

    /// Of this process.
    package static let current = UserNumbers(
        own: geteuid(), overflowText: SystemCall.text(of: "/proc/sys/kernel/overflowuid"),
        map: SystemCall.text(of: "/proc/self/uid_map"))

    /// - Parameters:
    ///   - overflowText: of /proc/sys/kernel/overflowuid; nil when it cannot be read.
    ///   - map: of /proc/self/uid_map; nil when it cannot be read.
    init(own: UInt32, overflowText: String?, map: String?) {
        self.own = own
        overflow = overflowText.flatMap { UInt32($0.prefix { $0.isNumber }) } ?? 65534
        let lines = (map ?? "").split(separator: "\n")
        let fields = lines.first?.split(separator: " ").compactMap { UInt64($0) } ?? []
        // A kernel without user namespaces has no such file, and all users.
        isComplete = map == nil || (lines.count == 1 && fields.count == 3 && fields[2] >= UInt64(UInt32.max))
    }

    /// Why this process cannot tell its own user from others; nil when it can.
    package var problem: String? {
        guard own == overflow, !isComplete else { return nil }
        return
            "it runs in a user namespace in which its user has no number (user \(own) stands for all such users), so "
            + "that nobody can be told from anybody else: map the user, as unshare --map-root-user does"
    }

    /// Whether a process or a file that the kernel gives this number is of our user.
    package func isOurs(_ user: UInt32) -> Bool { problem == nil && user == own }

    /// The number, and what it means.
    package func words(_ user: UInt32) -> String {
        if let problem, user == own { return "a user that cannot be told: \(problem)" }
        guard user == overflow, !isComplete else { return "user \(user)" }
        return "a user that has no number in this user namespace"
    }
}

/// This process's PID namespace, in which alone its numbers of processes mean something.
package enum ProcessNamespace {
    /// A number that no other PID namespace has while this one is there; 0 when /proc does not tell.
    package static let current: UInt64 = {
        var status = stat()
        // SAFETY: a live local; the path is a constant.
        guard unsafe stat("/proc/self/ns/pid", &status) == 0 else { return 0 }
        return UInt64(status.st_ino)
    }()
}
