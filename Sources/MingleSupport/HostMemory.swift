import CLinux

/// How much memory the host has, in bytes.
public struct HostMemory: Equatable, Sendable {
    public var totalBytes: UInt64
    public var availableBytes: UInt64
    public var swapTotalBytes: UInt64
    public var swapFreeBytes: UInt64
    /// What the control group of this process may use; nil if it has no limit.
    public var groupLimitBytes: UInt64?

    public init(
        totalBytes: UInt64, availableBytes: UInt64, swapTotalBytes: UInt64 = 0, swapFreeBytes: UInt64 = 0,
        groupLimitBytes: UInt64? = nil
    ) {
        self.totalBytes = totalBytes
        self.availableBytes = availableBytes
        self.swapTotalBytes = swapTotalBytes
        self.swapFreeBytes = swapFreeBytes
        self.groupLimitBytes = groupLimitBytes
    }

    /// Reads `/proc/meminfo` and the limits of the control group below `root`; nil without a usable meminfo.
    public init?(root: String = "") {
        guard let text = SystemCall.text(of: root + "/proc/meminfo") else { return nil }
        var kibibytes: [Substring: UInt64] = [:]
        for line in text.split(separator: "\n") {
            let fields = line.split(separator: " ", omittingEmptySubsequences: true)
            if fields.count >= 2, let number = UInt64(fields[1]) { kibibytes[fields[0]] = number }
        }
        guard let total = kibibytes["MemTotal:"], let available = kibibytes["MemAvailable:"] else {
            return nil
        }
        self.init(
            totalBytes: total * 1024, availableBytes: available * 1024,
            swapTotalBytes: (kibibytes["SwapTotal:"] ?? 0) * 1024,
            swapFreeBytes: (kibibytes["SwapFree:"] ?? 0) * 1024,
            groupLimitBytes: Self.groupLimit(root: root, total: total * 1024))
    }

    /// The least limit of our control group and those above it (cgroup v2 `memory.max`, v1
    /// `memory.limit_in_bytes`); a limit of more than the host has is none.
    private static func groupLimit(root: String, total: UInt64) -> UInt64? {
        var least: UInt64?
        for line in (SystemCall.text(of: root + "/proc/self/cgroup") ?? "").split(separator: "\n") {
            let fields = line.split(separator: ":", maxSplits: 2, omittingEmptySubsequences: false)
            guard fields.count == 3 else { continue }
            let isUnified = fields[1].isEmpty
            guard isUnified || fields[1].split(separator: ",").contains("memory") else { continue }
            let base = root + (isUnified ? "/sys/fs/cgroup" : "/sys/fs/cgroup/memory")
            let file = isUnified ? "/memory.max" : "/memory.limit_in_bytes"
            var group = String(fields[2])
            while true {
                let text = SystemCall.text(of: base + (group == "/" ? "" : group) + file)
                if let limit = text.flatMap({ UInt64($0.prefix { $0.isNumber }) }), limit < total {
                    least = min(least ?? .max, limit)
                }
                guard let slash = group.lastIndex(of: "/"), group != "/", !group.isEmpty else { break }
                group = String(group[..<slash])
            }
        }
        return least
    }

    /// What could back guests at all: memory and swap, or the control group's limit if that is less.
    public var ceilingBytes: UInt64 { min(totalBytes + swapTotalBytes, groupLimitBytes ?? .max) }
}

/// How many CPUs this process may use.
public enum HostProcessors {
    public static var count: Int { max(1, Int(sysconf(Int32(_SC_NPROCESSORS_ONLN)))) }
}
