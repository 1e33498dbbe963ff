import CLinux
internal import GuestMemory
internal import LinuxHost
internal import VMMProtocol

/// The checks of a host that need no KVM. Files are read below `root`, so that tests can show other hosts.
public struct HostChecks: Sendable {
    let root: String
    let container: ContainerKind?

    public init(root: String = "", container: ContainerKind?) {
        self.root = root
        self.container = container
    }

    /// The value of one of the kernel's small files, without white space around it.
    func value(_ path: String) -> String? {
        SystemCall.text(of: root + path).map { text in
            String(text.drop { $0.isWhitespace }.reversed().drop { $0.isWhitespace }.reversed())
        }
    }

    /// The word in brackets of a file such as `always [madvise] never`.
    func choice(_ path: String) -> String? {
        value(path)?.split(separator: " ").first { $0.hasPrefix("[") }.map {
            String($0.dropFirst().dropLast())
        }
    }

    func kernel() -> HostCheck {
        let text = value("/proc/sys/kernel/osrelease") ?? "unknown"
        let values: [(key: String, value: JSONValue)] = [("release", .string(text))]
        guard let release = KernelRelease(text), release.isAtLeast(6, 1) else {
            return HostCheck(
                "host.kernel", .warning, "Linux \(text) is older than 6.1, the oldest that is tested",
                remedy: "install a newer kernel of your distribution", values: values)
        }
        return HostCheck("host.kernel", .ok, "Linux \(text)", values: values)
    }

    func containerCheck() -> HostCheck {
        let values: [(key: String, value: JSONValue)] = [("kind", .optional(container?.rawValue))]
        guard let container else {
            return HostCheck("host.container", .ok, "not in a container", values: values)
        }
        return HostCheck(
            "host.container", .ok,
            "in a container (\(container.rawValue)): devices and limits are what it was given", values: values
        )
    }

    func processor() -> HostCheck {
        let facts = ProcessorFacts(root: root)
        let count = HostProcessors.count
        let values: [(key: String, value: JSONValue)] = [
            ("cpus", .integer(Int64(count))), ("vmx", .boolean(facts.hasVMX)),
            ("svm", .boolean(facts.hasSVM)),
        ]
        let extensions = facts.hasVMX ? "VT-x" : facts.hasSVM ? "AMD-V" : "neither VT-x nor AMD-V visible"
        return HostCheck("host.processor", .ok, "\(count) CPUs, \(extensions)", values: values)
    }

    func memory() -> HostCheck {
        guard let memory = HostMemory(root: root) else {
            return HostCheck(
                "host.memory", .warning, "/proc/meminfo cannot be read",
                remedy: "sudo mount -t proc proc /proc")
        }
        let overcommit = value("/proc/sys/vm/overcommit_memory").flatMap { UInt64($0) }
        let values: [(key: String, value: JSONValue)] = [
            ("total_bytes", .unsigned(memory.totalBytes)),
            ("available_bytes", .unsigned(memory.availableBytes)),
            ("swap_total_bytes", .unsigned(memory.swapTotalBytes)),
            ("swap_free_bytes", .unsigned(memory.swapFreeBytes)),
            ("group_limit_bytes", .optional(memory.groupLimitBytes)),
            ("overcommit_memory", .optional(overcommit)),
        ]
        var summary =
            "\(ByteSize.format(memory.availableBytes)) of \(ByteSize.format(memory.totalBytes)) available, "
            + (memory.swapTotalBytes == 0
                ? "no swap" : "\(ByteSize.format(memory.swapFreeBytes)) of swap free")
        if let limit = memory.groupLimitBytes { summary += ", control group limit \(ByteSize.format(limit))" }
        guard overcommit != 2 else {
            return HostCheck(
                "host.memory", .warning, summary + ", strict overcommit: guests' whole memory must fit",
                remedy: "sudo sysctl vm.overcommit_memory=0", values: values)
        }
        return HostCheck("host.memory", .ok, summary, values: values)
    }

    func mapCount() -> HostCheck {
        let least: UInt64 = 65530
        let count = value("/proc/sys/vm/max_map_count").flatMap { UInt64($0) }
        let values: [(key: String, value: JSONValue)] = [("max_map_count", .optional(count))]
        guard let count, count >= least else {
            return HostCheck(
                "host.max-map-count", .warning,
                "vm.max_map_count is \(count.map(String.init) ?? "not readable")",
                remedy: "sudo sysctl vm.max_map_count=\(least)", values: values)
        }
        return HostCheck("host.max-map-count", .ok, "vm.max_map_count is \(count)", values: values)
    }

    func samePageMerging() -> HostCheck {
        let run = value("/sys/kernel/mm/ksm/run").flatMap { UInt64($0) }
        let values: [(key: String, value: JSONValue)] = [("run", .optional(run))]
        guard let run else {
            return HostCheck("host.ksm", .ok, "the kernel has no KSM (it is not needed)", values: values)
        }
        return HostCheck(
            "host.ksm", .ok,
            run == 1 ? "KSM is on (it never merges guest RAM in memfds)" : "KSM is off (not needed)",
            values: values)
    }

    func hugePages() -> HostCheck {
        let anonymous = choice("/sys/kernel/mm/transparent_hugepage/enabled")
        let shared = choice("/sys/kernel/mm/transparent_hugepage/shmem_enabled")
        let values: [(key: String, value: JSONValue)] = [
            ("anonymous", .optional(anonymous)), ("shmem", .optional(shared)),
        ]
        let summary =
            "transparent huge pages: \(anonymous ?? "none"), for guest RAM (shmem): \(shared ?? "none")"
        return HostCheck("host.huge-pages", .ok, summary, values: values)
    }

    /// The checks of this process's limits.
    func limits() -> HostCheck {
        Self.limits(
            files: Self.limit(Int32(RLIMIT_NOFILE.rawValue)),
            locked: Self.limit(Int32(__RLIMIT_MEMLOCK.rawValue)),
            space: Self.limit(Int32(RLIMIT_AS.rawValue)), fileSize: Self.limit(Int32(RLIMIT_FSIZE.rawValue)),
            processes: ProcessLimit.tightestGroup())
    }

    /// The VMM's thread for a vCPU, that for sharing, and KVM's own.
    private static let threadsNeeded: UInt64 = 3

    static func limits(
        files: UInt64?, locked: UInt64?, space: UInt64?, fileSize: UInt64?,
        processes: (left: UInt64, description: String)? = nil
    ) -> HostCheck {
        let values: [(key: String, value: JSONValue)] = [
            ("nofile", .optional(files)), ("memlock_bytes", .optional(locked)),
            ("address_space_bytes", .optional(space)), ("file_size_bytes", .optional(fileSize)),
        ]
        let summary =
            "open files \(files.map { "\($0)" } ?? "unlimited"), locked memory \(Self.size(locked)), "
            + "address space \(Self.size(space))"
            + (fileSize.map { ", size of files \(Self.size($0))" } ?? "")
        if let fileSize {
            // What cannot hold the smallest guest lets none run.
            return HostCheck(
                "host.limits", fileSize < RunChecks.minimumPayloadMemory ? .problem : .warning,
                summary + ": a guest's memory is a memory file", remedy: "ulimit -f unlimited", values: values
            )
        }
        if let processes, processes.left < threadsNeeded {
            return HostCheck(
                "host.limits", .problem,
                summary + ": a guest needs \(threadsNeeded) threads, and \(processes.left) more are allowed",
                remedy: processes.description, values: values)
        }
        let needed = RunChecks.openFilesNeeded(cpus: 1, shares: true)
        if let files, files < UInt64(needed) {
            return HostCheck(
                "host.limits", .problem, summary + ": a guest may need \(needed) open files",
                remedy: "ulimit -n 1024", values: values)
        }
        if let space {
            return HostCheck(
                "host.limits", .warning, summary + ": a guest's whole memory counts as address space",
                remedy: space < 1 << 40 ? "ulimit -v unlimited" : nil, values: values)
        }
        if let files, files < 256 {
            return HostCheck("host.limits", .warning, summary, remedy: "ulimit -n 1024", values: values)
        }
        return HostCheck("host.limits", .ok, summary, values: values)
    }

    private static func size(_ limit: UInt64?) -> String { limit.map(ByteSize.format) ?? "unlimited" }

    /// The soft limit of a resource; nil if there is none.
    private static func limit(_ resource: Int32) -> UInt64? {
        var value = rlimit()
        // SAFETY: `value` is a whole struct rlimit of ours.
        guard unsafe getrlimit(resource, &value) == 0, value.rlim_cur != .max
        else {
            return nil
        }
        return UInt64(value.rlim_cur)
    }
}
