public import GuestMemory

/// What a running guest says of itself at its control socket: the answer to `stats` (docs/control.md).
public struct GuestStatistics: JSONObject, Sendable {
    public enum State: String, CaseIterable, Sendable {
        /// Until the guest has rung ``Doorbell/ready``.
        case booting
        case running, paused, ended
    }
    /// Why it paused itself: memory is nearly used up.
    public static let memoryIsShort = "memory"

    public var name = ""
    public var state = State.booting
    public var memoryBytes: UInt64 = 0
    /// What its memory file takes of the host's memory.
    public var homeBytes: UInt64 = 0
    /// From the start of its VMM to its first doorbell; nil before that.
    public var bootSeconds: Double?
    /// ``memoryIsShort``; nil when it is not paused, or when somebody else paused it.
    public var pausedFor: String?
    /// How short memory is: none, some or full; nil when it does not look.
    public var pressure: String?
    /// The socket of its broker, if it has one.
    public var broker: String?
    /// What its RAM is made of.
    public var ram: GuestMemory.Backing?
    /// nil when it was started with sharing off.
    public var sharing: SharingFigures?

    public init() {}

    public mutating func visit(_ members: any JSONMembers) {
        visitTold(members)
        members.optional("ram", &ram)
        members.optional("sharing", &sharing)
    }

    /// Those that `mingle stats --json` passes on as they are.
    public mutating func visitTold(_ members: any JSONMembers) {
        members.member("name", &name)
        members.member("state", &state)
        members.member("memory_bytes", &memoryBytes)
        members.member("home_bytes", &homeBytes)
        members.optional("boot_seconds", &bootSeconds)
        members.optional("paused_for", &pausedFor)
        members.optional("pressure", &pressure)
        members.optional("broker", &broker)
    }
}

/// The figures of one guest's sharing engine; pages unless said otherwise.
public struct SharingFigures: JSONObject, Sendable {
    /// What stands for the domain of a guest that shares with nobody.
    public static let ownDomain = "(its own)"

    public var isEnabled = false
    /// Memory is short: nothing more is merged for now.
    public var holdsMerges = false
    /// Sharing is off and every page home.
    public var isHome = false
    /// A domain's name, or ``ownDomain``.
    public var domain = ""
    /// How the pages of a batch are kept from changing, as it turned out: a word of `SharingChoice.Window`.
    public var window = ""
    public var hasBroker = false
    public var brokerError: String?
    /// Sharing has stopped for good: why.
    public var failure: String?
    /// Passes.
    public var fullScans: UInt64 = 0
    public var pagesHashed: UInt64 = 0
    /// Mappings of frames made, ever.
    public var pagesMerged: UInt64 = 0
    /// Now mapped to frames.
    public var pagesMapped: UInt64 = 0
    /// Now the kernel's zero page.
    public var pagesZero: UInt64 = 0
    /// Seen once by everybody.
    public var pagesUnshared: UInt64 = 0
    /// Private copies taken, ever.
    public var pagesUnsharedTotal: UInt64 = 0
    public var pagesVolatile: UInt64 = 0
    /// Mappings of guest memory.
    public var mappings: UInt64 = 0
    /// Times that sharing put work off: for want of heap, and of mappings.
    public var putOffNoMemory: UInt64 = 0
    public var putOffNoMapping: UInt64 = 0
    public var metadataBytes: UInt64 = 0
    public var cpuSeconds = 0.0
    /// Why it is left alone for now: booting, guest or cpu; nil while it is merged.
    public var hold: String?
    /// What sharing took of the guest's time, and the time that its vCPUs wanted; seconds. And their ratio of late, percent.
    public var lostSeconds = 0.0
    public var wantedSeconds = 0.0
    public var lossPercent = 0.0
    public var windows: UInt64 = 0
    /// Microseconds.
    public var windowMedian = 0.0
    public var window99 = 0.0
    public var windowMaximum = 0.0
    /// The last passes found nothing to do.
    public var isSettled = false
    /// Stretches may be mapped across private pages.
    public var absorbsGaps = false
    /// Connections to a broker, ever.
    public var brokerConnections: UInt64 = 0
    public var pagesRehomed: UInt64 = 0
    /// Comparisons in a window that found a page changed.
    public var mismatches: UInt64 = 0
    /// Pauses in which mappings were made fewer.
    public var arrangements: UInt64 = 0

    public init() {}

    public mutating func visit(_ members: any JSONMembers) {
        visitTold(members)
        members.member("windows", &windows)
        members.member("window_p50_us", &windowMedian)
        members.member("window_p99_us", &window99)
        members.member("window_max_us", &windowMaximum)
        members.new("settled", &isSettled)
        members.new("absorbs_gaps", &absorbsGaps)
        members.new("broker_connections", &brokerConnections)
        members.new("pages_rehomed", &pagesRehomed)
        members.new("mismatches", &mismatches)
        members.new("arrangements", &arrangements)
    }

    /// Those that `mingle stats --json` passes on as they are.
    public mutating func visitTold(_ members: any JSONMembers) {
        members.member("enabled", &isEnabled)
        members.new("merges_held", &holdsMerges)
        members.member("home", &isHome)
        members.member("domain", &domain)
        members.member("window", &window)
        members.member("broker_connected", &hasBroker)
        members.optional("broker_error", &brokerError)
        members.optional("failure", &failure)
        members.member("full_scans", &fullScans)
        members.member("pages_hashed", &pagesHashed)
        members.member("pages_merged", &pagesMerged)
        members.member("pages_mapped", &pagesMapped)
        members.member("pages_zero", &pagesZero)
        members.member("pages_unshared", &pagesUnshared)
        members.member("pages_unshared_total", &pagesUnsharedTotal)
        members.member("pages_volatile", &pagesVolatile)
        members.member("mappings", &mappings)
        members.new("put_off_no_memory", &putOffNoMemory)
        members.new("put_off_no_mapping", &putOffNoMapping)
        members.member("metadata_bytes", &metadataBytes)
        members.member("cpu_seconds", &cpuSeconds)
        members.optional("hold", &hold)
        members.member("guest_lost_seconds", &lostSeconds)
        members.member("guest_wanted_seconds", &wantedSeconds)
        members.member("guest_loss_percent", &lossPercent)
    }
}
