/// Something that bounds how much memory guests can have: the host, or a control group with a limit; bytes.
public struct MemoryBound: Equatable, Sendable {
    /// The control group; nil is the host.
    public var group: String?
    /// What it may hold in all.
    public var totalBytes: UInt64
    /// What could be had now: free, or taken by pages of files that the kernel can read again.
    public var availableBytes: UInt64
    /// What could be swapped out beyond that.
    public var swapFreeBytes: UInt64
    /// How often the limit of a control group was run into, ever.
    public var limitHits: UInt64 = 0

    public init(group: String? = nil, totalBytes: UInt64, availableBytes: UInt64, swapFreeBytes: UInt64 = 0) {
        self.group = group
        self.totalBytes = totalBytes
        self.availableBytes = availableBytes
        self.swapFreeBytes = swapFreeBytes
    }

    /// What is not for guests, so that whoever else needs memory finds some: 1 %, at least 64 MiB, but never more than
    /// an eighth.
    public var reserveBytes: UInt64 { min(max(totalBytes / 100, 64 << 20), totalBytes / 8) }

    /// All that bound this process: the host first, then the groups with limits, from its own upwards.
    /// - Parameter root: a folder in front of /proc and /sys, for tests.
    /// - Returns: nothing when the host does not say how much memory it has.
    public static func all(root: String = "") -> [MemoryBound] { MemoryBoundReader(root: root).all() }

    static func versionTwo(
        _ group: String, _ folder: String, host: MemoryBound, _ files: SmallFiles
    ) -> MemoryBound? {
        let most = files.number(in: folder + "/memory.max") ?? .max
        let limit = min(most, files.number(in: folder + "/memory.high") ?? .max)
        guard limit < host.totalBytes, let current = files.number(in: folder + "/memory.current") else {
            return nil
        }
        var cached: UInt64 = 0
        if files.load(folder + "/memory.stat") {
            cached = (files.value("active_file") ?? 0) + (files.value("inactive_file") ?? 0)
        }
        var swap = host.swapFreeBytes
        if let most = files.number(in: folder + "/memory.swap.max") {
            let used = files.number(in: folder + "/memory.swap.current") ?? 0
            swap = min(swap, most - min(most, used))
        }
        var hits: UInt64 = 0
        if files.load(folder + "/memory.events") {
            hits = (files.value("high") ?? 0) + (files.value("max") ?? 0)
        }
        return bound(group, limit: limit, current: current, files: cached, swap: swap, hits: hits)
    }

    static func versionOne(
        _ group: String, _ folder: String, host: MemoryBound, _ files: SmallFiles
    ) -> MemoryBound? {
        guard let limit = files.number(in: folder + "/memory.limit_in_bytes"), limit < host.totalBytes,
            let current = files.number(in: folder + "/memory.usage_in_bytes")
        else { return nil }
        var cached: UInt64 = 0
        if files.load(folder + "/memory.stat") {
            cached = (files.value("total_active_file") ?? 0) + (files.value("total_inactive_file") ?? 0)
        }
        var swap = host.swapFreeBytes
        if let most = files.number(in: folder + "/memory.memsw.limit_in_bytes") {
            // Memory and swap together; what memory may still grow is not swap's.
            let used = files.number(in: folder + "/memory.memsw.usage_in_bytes") ?? current
            swap = min(swap, most - min(most, used + limit - min(limit, current)))
        }
        return bound(
            group, limit: limit, current: current, files: cached, swap: swap,
            hits: files.number(in: folder + "/memory.failcnt") ?? 0)
    }

    private static func bound(
        _ group: String, limit: UInt64, current: UInt64, files: UInt64, swap: UInt64, hits: UInt64
    ) -> MemoryBound {
        let held = current - min(current, files)
        var bound = MemoryBound(
            group: group, totalBytes: limit, availableBytes: limit - min(limit, held), swapFreeBytes: swap)
        bound.limitHits = hits
        return bound
    }
}
