/// What a running guest says of itself at its control socket (docs/control.md).
public struct GuestStatistics: Equatable, Sendable {
    public var name = ""
    /// booting, running, paused or ended.
    public var state = ""
    public var memoryBytes: UInt64 = 0
    /// What its memory file takes of the host's memory.
    public var homeBytes: UInt64 = 0
    /// From the start of its VMM to its first doorbell; nil before that.
    public var bootSeconds: Double?
    /// Why it is paused, when it paused itself: `memory`.
    public var pausedFor: String?
    /// How short memory is: none, some or full; nil when it does not look.
    public var pressure: String?
    /// The socket of its broker, if it has one.
    public var broker: String?
    /// nil when it was started with sharing off.
    public var sharing: SharingFigures?

    public init() {}

    /// Reads the answer to `stats`; nil if it is none.
    public init?(json text: String) {
        guard let json = JSONValue(parsing: text), let name = json["name"]?.string,
            let state = json["state"]?.string, let memory = json["memory_bytes"]?.count,
            let home = json["home_bytes"]?.count
        else { return nil }
        (self.name, self.state, memoryBytes, homeBytes) = (name, state, memory, home)
        bootSeconds = json["boot_seconds"]?.number
        broker = json["broker"]?.string
        pausedFor = json["paused_for"]?.string
        pressure = json["pressure"]?.string
        if let figures = json["sharing"] {
            guard let sharing = SharingFigures(figures) else { return nil }
            self.sharing = sharing
        }
    }
}

/// The figures of one guest's sharing engine; pages unless said otherwise.
public struct SharingFigures: Equatable, Sendable {
    public var isEnabled = false
    /// Sharing is off and every page home.
    public var isHome = false
    /// Memory is short: nothing more is merged for now.
    public var holdsMerges = false
    public var domain = ""
    public var window = ""
    public var hasBroker = false
    public var brokerError: String?
    public var failure: String?
    public var fullScans: UInt64 = 0
    public var pagesHashed: UInt64 = 0
    public var pagesMerged: UInt64 = 0
    /// Now mapped to frames.
    public var pagesMapped: UInt64 = 0
    /// Now the kernel's zero page.
    public var pagesZero: UInt64 = 0
    public var pagesUnsharedTotal: UInt64 = 0
    public var pagesUnshared: UInt64 = 0
    public var pagesVolatile: UInt64 = 0
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

    public init() {}

    init?(_ json: JSONValue) {
        var isComplete = true
        func count(_ key: String) -> UInt64 {
            guard let count = json[key]?.count else {
                isComplete = false
                return 0
            }
            return count
        }
        func number(_ key: String) -> Double {
            guard let number = json[key]?.number else {
                isComplete = false
                return 0
            }
            return number
        }
        guard let enabled = json["enabled"]?.flag, let home = json["home"]?.flag,
            let domain = json["domain"]?.string, let window = json["window"]?.string,
            let broker = json["broker_connected"]?.flag
        else { return nil }
        (isEnabled, isHome, hasBroker) = (enabled, home, broker)
        (self.domain, self.window) = (domain, window)
        brokerError = json["broker_error"]?.string
        holdsMerges = json["merges_held"]?.flag ?? false
        failure = json["failure"]?.string
        fullScans = count("full_scans")
        pagesHashed = count("pages_hashed")
        pagesMerged = count("pages_merged")
        pagesMapped = count("pages_mapped")
        pagesZero = count("pages_zero")
        pagesUnsharedTotal = count("pages_unshared_total")
        pagesUnshared = count("pages_unshared")
        pagesVolatile = count("pages_volatile")
        mappings = count("mappings")
        putOffNoMemory = json["put_off_no_memory"]?.count ?? 0
        putOffNoMapping = json["put_off_no_mapping"]?.count ?? 0
        metadataBytes = count("metadata_bytes")
        cpuSeconds = number("cpu_seconds")
        hold = json["hold"]?.string
        lostSeconds = number("guest_lost_seconds")
        wantedSeconds = number("guest_wanted_seconds")
        lossPercent = number("guest_loss_percent")
        windows = count("windows")
        windowMedian = number("window_p50_us")
        window99 = number("window_p99_us")
        windowMaximum = number("window_max_us")
        guard isComplete else { return nil }
    }
}
