import CLinux
internal import GuestMemory
internal import LinuxHost

/// How much memory the host has, in bytes.
public struct HostMemory: Equatable, Sendable {
    public var totalBytes: UInt64
    public var availableBytes: UInt64
    public var swapTotalBytes: UInt64
    public var swapFreeBytes: UInt64
    /// The least limit of our control group and those above it; nil if there is none below what the host has.
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
        let kibibytes = SmallFile.table(text)
        guard let total = kibibytes["MemTotal"], let available = kibibytes["MemAvailable"] else {
            return nil
        }
        self.init(
            totalBytes: total * 1024, availableBytes: available * 1024,
            swapTotalBytes: (kibibytes["SwapTotal"] ?? 0) * 1024,
            swapFreeBytes: (kibibytes["SwapFree"] ?? 0) * 1024,
            groupLimitBytes: MemoryBound.all(root: root).filter { $0.group != nil }.map(\.totalBytes).min())
    }
}

/// How many CPUs this process may use.
public enum HostProcessors {
    public static var count: Int { max(1, Int(sysconf(Int32(_SC_NPROCESSORS_ONLN)))) }
}
