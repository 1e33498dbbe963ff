/// What the engine may cost and when it acts. Can be changed while it runs.
public struct SharingPolicy: Equatable, Sendable {
    /// How the pages of a batch are kept from changing between compare and remap.
    public enum Window: String, Sendable {
        /// userfaultfd write protection: writers of just these pages wait.
        case userfaultfd
        /// All vCPUs and device threads are paused.
        case pause
    }
    public var window = Window.userfaultfd
    public var isEnabled = true
    /// Nothing more is merged, and no page taken home: memory is short. What is shared stays shared and is accounted for.
    public var holdsMerges = false
    /// Share of one CPU, 0...1, that this sharing thread may use while no guest's vCPUs wait for one; and that those of all
    /// guests together may use while some do.
    public var cpuShare = 0.25
    public var scarceShare = 0.1
    /// Mappings that guest memory may consist of. The kernel's limit for a process is 65530 by default.
    public var mappingLimit = 57_000
    /// Pages in one window at most.
    public var runLimit = 128
    /// Pages in one pause at most.
    public var pauseLimit = 256
    /// Exponent of the longest wait of a volatile page, in shortest intervals between passes.
    public var backoffLimit: UInt8 = 6
    /// Write faults that the guest may suffer because its pages are watched, a second; somewhat more for a short time. Infinite:
    /// all that was written is watched, but for volatile pages.
    public var faultsPerSecond: Double = 400
    /// Uniform pages side by side from which on they get copies of their own.
    public var uniformRun = 8
    /// Looks that must find a frame without another mapper before its page goes home.
    public var singleMapperRounds = 8
    /// Passes in which every page of mapped memory is proved again once, though nothing was reported: two minutes when
    /// nothing changes.
    public var auditPasses = 64
    /// Mappings are arranged anew when there are so many more (or fewer) than after the last time, and not below; 0: never.
    public var arrangementGain = 8
    /// Only after a pass that did not more than this, and so many passes after the last time.
    public var arrangementCalm = 256
    public var arrangementInterval = 4
    /// And only after so many passes that were calm and brought no frame a better place.
    public var arrangementRest = 3
    /// Every stretch is mapped anew each time, whether or not that changes anything; for tests.
    public var arrangesAll = false
    /// Pages looked at in a pass, promotions included, from which on promotions are asked for between passes.
    public var eagerFrom = 2048
    /// A page must have stayed clean for so long, nanoseconds, before it is looked at.
    public var quietTime: UInt64 = 0
    /// For so long, nanoseconds, a guest that writes page after page (it boots, say) is left alone: what it holds now, it
    /// will not hold then, and every merge would only fragment its mapping.
    public var busyPatience: UInt64 = 0
    /// Between passes, nanoseconds: while there is work, and at most when nothing changes.
    public var shortestInterval: UInt64 = 20_000_000
    public var longestInterval: UInt64 = 2_000_000_000
    public init() {}

    /// Sets what sharing may take of the CPU.
    /// - Parameter percent: of one CPU, for all guests together while CPU time is scarce. While it is not, each may take two and a
    ///   half times that, one CPU at most.
    public mutating func setShare(percent: Double) {
        scarceShare = percent / 100
        cpuShare = min(scarceShare * 2.5, 1)
    }
}
