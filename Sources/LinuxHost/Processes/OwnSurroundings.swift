internal import CLinux
internal import Glibc

/// What a broker inherited of the guest that happened to start it, and gives up: it serves all guests of the user. What it
/// cannot lift stays to be seen by everybody (``ProcessConstraint``).
package enum OwnSurroundings {
    /// Limits that have no place in a broker, and how much is as good as no limit.
    private static let resources: [(number: Int32, enough: rlim_t)] = [
        (Int32(RLIMIT_FSIZE.rawValue), .max), (Int32(__RLIMIT_RSS.rawValue), .max),
        (Int32(RLIMIT_AS.rawValue), .max), (Int32(RLIMIT_DATA.rawValue), .max),
        (Int32(RLIMIT_CPU.rawValue), .max), (Int32(__RLIMIT_NPROC.rawValue), .max),
        (Int32(__RLIMIT_MEMLOCK.rawValue), .max), (Int32(__RLIMIT_SIGPENDING.rawValue), .max),
        (Int32(RLIMIT_NOFILE.rawValue), 16384), (Int32(RLIMIT_STACK.rawValue), 8 << 20),
    ]
    /// With fewer descriptors no guest can be served.
    private static let leastDescriptors: UInt64 = 64

    /// Lifts limits and takes the usual priority, all processors and memory from everywhere. Before
    /// ``HostProcess/harden()``, which takes the right to write to /proc/self.
    package static func take() {
        for (resource, enough) in resources { lift(resource, enough) }
        // Lowering the nice value and leaving some scheduling classes takes a right (RLIMIT_NICE).
        _ = mingle_normal_scheduling()
        _ = mingle_normal_io_priority()
        _ = mingle_use_all_processors()
        _ = mingle_default_memory_policy()
        lowerDanger()
    }

    private static func lift(_ resource: Int32, _ enough: rlim_t) {
        var limit = rlimit()
        // SAFETY: live locals.
        guard unsafe getrlimit(resource, &limit) == 0 else { return }
        if limit.rlim_max < enough {
            var wanted = rlimit(rlim_cur: enough, rlim_max: enough)
            if unsafe setrlimit(resource, &wanted) == 0 { return }
        }
        guard limit.rlim_cur < min(limit.rlim_max, enough) else { return }
        limit.rlim_cur = min(limit.rlim_max, max(limit.rlim_cur, enough))
        _ = unsafe setrlimit(resource, &limit)
    }

    /// A process may make itself safer again down to what somebody with more rights last gave it.
    private static func lowerDanger() {
        let path = "/proc/self/oom_score_adj"
        guard !ProcessConstraint.all().filter({ $0.kind == .endangered }).isEmpty else { return }
        do throws(LinuxError) {
            let file = try OwnedDescriptor.open(path, flags: O_WRONLY)
            // SAFETY: one byte of a constant.
            _ = unsafe write(file.number, "0", 1)
        } catch { return }
    }

    /// Why no broker with such limits is of use to anybody; nil when one is.
    package static func refusal() -> String? {
        let advice = "start the first guest that shares where there is no such limit"
        if let limit = ProcessLimit.fileSize.current {
            return
                "files of at most \(limit) bytes are allowed (ulimit -f), which cannot be lifted, and a store is larger: "
                + advice
        }
        if let limit = ProcessLimit.openFiles.current, limit < leastDescriptors {
            return
                "\(limit) open files are allowed (ulimit -n), which cannot be lifted, and a broker needs \(leastDescriptors): "
                + advice
        }
        return nil
    }
}
