public import GuestMemory
public import ImageFormats

/// What a payload finds in its boot information page.
public struct PayloadOptions: Equatable, Sendable {
    /// `key=value` words, at most 4095 bytes.
    public var arguments = ""
    /// Tells guests of one experiment apart.
    public var guestIndex: UInt32 = 0
    public var seed: UInt64 = 1
    public init() {}
}

/// A guest to be: everything that is fixed before it starts.
public struct VirtualMachineConfiguration: Sendable {
    /// For messages and file names; letters, digits, and `._-`.
    public var name = "guest"
    /// RAM, a multiple of 4096.
    public var memorySizeInBytes: UInt64 = 128 << 20
    /// 1 to 32.
    public var processorCount = 1
    /// vmlinux, bzImage or payload.
    public var kernelPath = ""
    public var bootProtocol = BootProtocol.auto
    /// Concatenated in this order. Regular files.
    public var initrdPaths: [String] = []
    /// At most 2047 bytes.
    public var commandLine = ""
    public var payload = PayloadOptions()
    /// What RAM is made of.
    public var memoryBacking = GuestMemory.Backing.memoryFile
    public var dirtyLog = DirtyLogMode.off
    /// The log begins when ``VirtualMachine/beginLogging()`` is called; before, it costs the guest nothing. Of the manual log.
    public var beginsDirtyLogLater = false
    /// Where KVM is.
    public var kvmPath = "/dev/kvm"

    public static let maximumProcessorCount = 32
    /// The tables below 1 MiB and a page of program are the least a payload needs; Linux needs far more.
    public static let minimumMemorySizeInBytes: UInt64 = 2 << 20

    public init() {}

    /// - Throws: `invalidConfiguration`, with what to do.
    func validate() throws(HypervisorError) {
        guard (1...Self.maximumProcessorCount).contains(processorCount) else {
            throw .invalidConfiguration(
                "\(processorCount) vCPUs: a guest can have 1 to \(Self.maximumProcessorCount)")
        }
        guard memorySizeInBytes >= Self.minimumMemorySizeInBytes else {
            throw .invalidConfiguration("\(memorySizeInBytes) bytes of memory: a guest needs at least 2 MiB")
        }
        guard !kernelPath.isEmpty else { throw .invalidConfiguration("no kernel given") }
    }
}
