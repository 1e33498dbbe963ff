public import GuestMemory
public import ImageFormats

/// What one `mingle-vmm` is told: written and read by one table of options, so that the two ends cannot differ.
///
/// What is nil is not passed: the VMM's own default holds, which is what its property says here.
public struct VMMInvocation: Equatable, Sendable {
    public var name = "guest"
    public var memoryBytes: UInt64 = 128 << 20
    public var cpuCount = 1
    public var kernel = ""
    public var boot = BootProtocol.auto
    public var initrds: [String] = []
    public var commandLine: String?
    public var serial = SerialDestination.standardStreams
    /// At the end of an input that is no terminal, send Ctrl-D.
    public var sendsEndOfFile = false
    /// Seconds after which the guest is stopped; nil or 0: never.
    public var timeoutSeconds: Double?
    /// Seconds between the power button and the end by force; nil: 5.
    public var graceSeconds: Double?
    public var logLevel = LogLevel.warning
    /// Where running guests are registered; checked by whoever starts the VMM.
    public var stateDirectory: String?
    public var seed: UInt64?
    public var guestIndex: UInt32?
    public var payloadArguments: String?
    public var dirtyLog: DirtyLogMode?
    public var report: String?
    /// What `mingle ps` shows as the image.
    public var image: String?
    public var sharing = SharingChoice()
    /// The guest has a virtio entropy device.
    public var hasEntropy = false
    /// The socket for commands while it runs (docs/control.md).
    public var control: String?
    /// The guest ends with the process that started it.
    public var diesWithParent = false
    /// Its worst case may be more than there is: it is paused when memory is nearly gone.
    public var overcommits = false
    /// A descriptor with a lock that is closed once the guest is registered.
    public var admission: Int32?
    /// What guest RAM is made of; nil: a memory file.
    public var ram: GuestMemory.Backing?
    /// Where KVM is; nil: /dev/kvm.
    public var kvm: String?
    /// From before the guest's first instruction on, the VMM can open, connect and execute nothing (docs/confinement.md).
    public var confines = true
    /// Of debug builds: what is to go wrong (`FaultInjection`).
    public var injection: String?

    public init() {}

    public init(name: String, memoryBytes: UInt64, cpuCount: Int, kernel: String) {
        self.name = name
        self.memoryBytes = memoryBytes
        self.cpuCount = cpuCount
        self.kernel = kernel
    }
}

/// How much is told on standard error, from everything to nothing but errors.
public enum LogLevel: String, CaseIterable, Comparable, Sendable {
    case trace, debug, info, warning, error

    private var rank: Int { Self.allCases.firstIndex(of: self) ?? 0 }
    public static func < (left: LogLevel, right: LogLevel) -> Bool { left.rank < right.rank }
}

/// A mistake in the arguments.
public struct UsageError: Error, Equatable, Sendable, CustomStringConvertible {
    public let description: String
    public init(_ description: String) { self.description = description }
}
