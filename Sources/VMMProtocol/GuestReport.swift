/// What the VMM writes for `--report` when its guest has ended; times are nanoseconds of ``clock``.
public struct GuestReport: JSONObject, Sendable {
    /// The guest rang at its doorbell port.
    public struct Ring: JSONObject, Sendable {
        public var number: UInt64 = 0
        /// Which vCPU rang.
        public var processor: UInt64 = 0
        public var at: UInt64 = 0

        public init() {}
        public init(number: UInt32, processor: Int, at: UInt64) {
            (self.number, self.processor, self.at) = (UInt64(number), UInt64(clamping: processor), at)
        }

        public mutating func visit(_ members: any JSONMembers) {
            members.member("number", &number)
            members.member("processor", &processor)
            members.member("ns", &at)
        }
    }

    public var name = ""
    /// The path of its image.
    public var kernel = ""
    public var memoryBytes: UInt64 = 0
    public var cpuCount: UInt64 = 0
    /// How the guest ended, in a word.
    public var end = ""
    /// The exit code of the VMM (``ExitStatus``).
    public var status: UInt64 = 0
    public var clock = "CLOCK_MONOTONIC"
    /// The VMM began.
    public var started: UInt64 = 0
    /// The guest was ready to run.
    public var built: UInt64 = 0
    /// Before its first instruction; nil when it never ran.
    public var entered: UInt64?
    public var ended: UInt64 = 0
    /// How often it rang.
    public var ringCount: UInt64 = 0
    /// The first of them.
    public var rings: [Ring] = []

    public init() {}

    public mutating func visit(_ members: any JSONMembers) {
        members.member("name", &name)
        members.member("kernel", &kernel)
        members.member("memory_bytes", &memoryBytes)
        members.member("cpus", &cpuCount)
        members.member("end", &end)
        members.member("status", &status)
        members.member("clock", &clock)
        members.member("started_ns", &started)
        members.member("built_ns", &built)
        members.optional("entered_ns", &entered)
        members.member("ended_ns", &ended)
        members.member("doorbell_count", &ringCount)
        members.member("doorbells", &rings)
    }

    /// The text of the file: a member a line.
    public var text: String { json.text(levels: 1) + "\n" }
}

/// Rings at the doorbell port whose meaning is fixed (guests/README.md, guests/linux/README.md).
public enum Doorbell {
    /// User space is reached, or the payload is ready.
    public static let ready: UInt32 = 1
    /// The terminal line takes any bytes.
    public static let acceptsInput: UInt32 = 2
}
