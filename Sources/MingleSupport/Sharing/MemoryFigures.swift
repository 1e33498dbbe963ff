import LinuxHost

/// What one process takes of memory, by the kernel's count (proc(5), /proc/PID/status); bytes.
public struct ProcessFigures: Equatable, Sendable {
    public var anonymousBytes: UInt64 = 0
    public var swapBytes: UInt64 = 0
    /// Page tables.
    public var pageTableBytes: UInt64 = 0

    public init() {}

    /// Reads the text of `/proc/PID/status`; nil without such lines (a zombie has none).
    public init?(status text: String) {
        let kibibytes = SmallFile.table(text)
        guard let anonymous = kibibytes["RssAnon"] else { return nil }
        anonymousBytes = anonymous * 1024
        swapBytes = (kibibytes["VmSwap"] ?? 0) * 1024
        pageTableBytes = (kibibytes["VmPTE"] ?? 0) * 1024
    }

    public init?(process: Int32) {
        guard let text = SystemCall.text(of: "/proc/\(process)/status") else { return nil }
        self.init(status: text)
    }
}

/// What guests take of the host's memory: the sum of parts, each from the kernel; bytes.
public struct MemoryFigures: Equatable, Sendable {
    /// The guests' memory files.
    public var homeBytes: UInt64 = 0
    /// Anonymous memory of the VMMs: their own, and guests' private copies.
    public var anonymousBytes: UInt64 = 0
    public var swapBytes: UInt64 = 0
    /// Through which VMMs hand contents to the broker.
    public var stagingBytes: UInt64 = 0
    /// The broker's stores.
    public var storeBytes: UInt64 = 0
    /// Anonymous memory and swap of the broker's processes.
    public var brokerBytes: UInt64 = 0
    /// Counted once for each process above, though KSM keeps it once: to be taken off.
    public var mergedTwiceBytes: UInt64 = 0
    /// Not part of the sum.
    public var pageTableBytes: UInt64 = 0

    public init() {}

    public var residentBytes: UInt64 {
        let sum = homeBytes + anonymousBytes + swapBytes + stagingBytes + storeBytes + brokerBytes
        return sum - min(sum, mergedTwiceBytes)
    }

    mutating func add(vmm: ProcessFigures, homeBytes: UInt64, stagingBytes: UInt64) {
        self.homeBytes += homeBytes
        self.stagingBytes += stagingBytes
        anonymousBytes += vmm.anonymousBytes
        swapBytes += vmm.swapBytes
        pageTableBytes += vmm.pageTableBytes
    }

    mutating func add(broker: ProcessFigures) {
        brokerBytes += broker.anonymousBytes + broker.swapBytes
        pageTableBytes += broker.pageTableBytes
    }
}

/// What of the host's memory is in use and cannot be had back by dropping files from the cache.
enum HostUse {
    static func bytes(root: String = "") -> UInt64? {
        let found = SmallFile.table(SystemCall.text(of: root + "/proc/meminfo") ?? "").mapValues { $0 * 1024 }
        guard let total = found["MemTotal"], let free = found["MemFree"], let cached = found["Cached"],
            let shared = found["Shmem"]
        else { return nil }
        let files = cached - min(cached, shared) + (found["Buffers"] ?? 0) + (found["SwapCached"] ?? 0)
        return total - min(total, free + files + freeByProcessor(root))
    }

    /// Free pages that the allocator keeps at hand for each processor, which `MemFree` lacks: tens of MiB, more or less by chance
    /// (proc(5), /proc/zoneinfo, `pagesets`).
    private static func freeByProcessor(_ root: String) -> UInt64 {
        var pages: UInt64 = 0
        for line in (SystemCall.text(of: root + "/proc/zoneinfo") ?? "").split(separator: "\n") {
            let fields = line.split(separator: " ")
            if fields.count == 2, fields[0] == "count:" { pages += UInt64(fields[1]) ?? 0 }
        }
        return pages * 4096
    }

    static func growth(since before: UInt64?) -> Int64? {
        guard let before, let now = bytes() else { return nil }
        return Int64(clamping: now) - Int64(clamping: before)
    }
}

/// Other processes' files and children, from /proc.
enum ProcessTable {
    /// Memory that the staging area of a VMM takes; what it can take at most when the kernel does not let us look.
    static func stagingBytes(of process: Int32) -> UInt64 {
        let folder = "/proc/\(process)/fd"
        guard case .success(let names) = SystemCall.names(in: folder) else { return 1 << 20 }
        var sum: UInt64 = 0
        for name in names {
            let path = "\(folder)/\(name)"
            guard let target = try? SystemCall.linkTarget(path), target.hasPrefix("/memfd:mingle-staging"),
                case .success(let status) = SystemCall.status(path)
            else { continue }
            sum += status.allocatedBytes
        }
        return sum
    }

    /// The processes whose parent is `parent`.
    static func children(of parent: Int32) -> [Int32] {
        // Kernels built so list them (CONFIG_PROC_CHILDREN); a list may lack some while one of them ends (proc(5)).
        if let listed = listedChildren(of: parent), listed == listedChildren(of: parent) { return listed }
        return allChildren(of: parent)
    }

    private static func listedChildren(of parent: Int32) -> [Int32]? {
        guard case .success(let threads) = SystemCall.names(in: "/proc/\(parent)/task") else { return nil }
        let lists = threads.map { SystemCall.text(of: "/proc/\(parent)/task/\($0)/children") }
        if lists.isEmpty || lists.contains(nil) { return nil }
        return lists.flatMap { ($0 ?? "").split(separator: " ").compactMap { Int32($0) } }
    }

    /// The same by a look at all processes.
    static func allChildren(of parent: Int32) -> [Int32] {
        processes { _, fields in fields.count > 1 && fields[1] == "\(parent)" }
    }

    /// The processes (or kernel threads) that are called `name`.
    static func named(_ name: String) -> [Int32] { processes { found, _ in found == name } }

    /// CPU time of a process in seconds; nil when it is gone. To the nanosecond where the kernel counts so: of the
    /// threads that live.
    static func cpuSeconds(of process: Int32, ticksPerSecond: Double = 100) -> Double? {
        if case .success(let threads) = SystemCall.names(in: "/proc/\(process)/task") {
            let times = threads.map { thread in
                SystemCall.text(of: "/proc/\(process)/task/\(thread)/schedstat")
                    .flatMap { UInt64($0.prefix { $0.isNumber }) }
            }
            let sum = times.reduce(0) { $0 + ($1 ?? 0) }
            if sum > 0, !times.contains(nil) { return Double(sum) / 1e9 }
        }
        guard let fields = ProcessStat(process: process)?.fields, fields.count > 12,
            let user = Double(fields[11]), let system = Double(fields[12])
        else { return nil }
        return (user + system) / ticksPerSecond
    }

    private static func processes(_ isWanted: (_ name: String, _ fields: [Substring]) -> Bool) -> [Int32] {
        guard case .success(let names) = SystemCall.names(in: "/proc") else { return [] }
        return names.compactMap { Int32($0) }.filter { process in
            ProcessStat(process: process).map { isWanted($0.name, $0.fields) } ?? false
        }
    }
}
