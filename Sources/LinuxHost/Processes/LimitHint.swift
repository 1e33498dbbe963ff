internal import CLinux
internal import Glibc

/// The limits of this process (getrlimit(2)) that turn up as errors of system calls, and what to do about them.
public enum ProcessLimit: Sendable {
    case fileSize, openFiles

    /// What is allowed now; nil: anything.
    public var current: UInt64? {
        values.flatMap { $0.rlim_cur == Self.infinity ? nil : UInt64($0.rlim_cur) }
    }

    /// Allows as much as this process may without asking for more rights.
    public func raise() {
        guard var values, values.rlim_cur != values.rlim_max else { return }
        values.rlim_cur = values.rlim_max
        // SAFETY: a live local.
        _ = unsafe setrlimit(resource, &values)
    }

    // RLIM_INFINITY is a macro with a cast.
    private static let infinity = rlim_t.max
    private var resource: Int32 {
        switch self {
        case .fileSize: Int32(RLIMIT_FSIZE.rawValue)
        case .openFiles: Int32(RLIMIT_NOFILE.rawValue)
        }
    }
    private var values: rlimit? {
        var values = rlimit()
        // SAFETY: a live local.
        return unsafe getrlimit(resource, &values) == 0 ? values : nil
    }

    /// What an errno says of a limit, and what to do: nil where it speaks of none.
    public static func hint(_ code: Int32) -> String? {
        switch code {
        case EMFILE:
            let count = openFiles.current.map { "\($0)" } ?? "no more"
            return "this process may have \(count) files open: raise the limit (ulimit -n 1024)"
        case ENFILE: return "this host has as many files open as it allows: raise the sysctl fs.file-max"
        case EFBIG:
            guard let limit = fileSize.current else { return nil }
            return "this process may write files of \(PlainSize.text(limit)), and memory files count: "
                + "raise the limit (ulimit -f unlimited)"
        case ENOSPC: return "free some space there"
        default: return nil
        }
    }

    /// The control group that allows the fewest more processes and threads, and how many; nil where none limits them.
    public static func tightestGroup() -> (left: UInt64, description: String)? {
        if PathAccess.isOver { return nil }
        let hierarchies = ControlGroupHierarchy.all()
        var tightest: (left: UInt64, description: String)?
        for hierarchy in hierarchies {
            guard let group = hierarchy.group() else { continue }
            for (name, folder) in hierarchy.upwards(group) {
                guard let most = SmallFile.number(in: folder + "/pids.max"),
                    let now = SmallFile.number(in: folder + "/pids.current")
                else { continue }
                let left = most - min(most, now)
                if let tightest, tightest.left <= left { continue }
                tightest = (
                    left,
                    "control group \(name) allows \(most) processes and threads: raise \(folder)/pids.max"
                )
            }
        }
        return tightest
    }

    /// What to do when no process or thread can be started (EAGAIN).
    public static func startHint() -> String {
        if let group = tightestGroup(), group.left < 8 { return group.description }
        return
            "the number of processes and threads is limited: raise it (ulimit -u, pids.max of the control group)"
    }

    /// Whether a signal kills this process when it writes beyond the limit of files' size: from here on such a write fails
    /// with EFBIG instead. Survives execve(2), but not ``HostProcess``'s spawn.
    public static func ignoreFileSizeSignal() { _ = signal(SIGXFSZ, SIG_IGN) }
}
