/// What a running guest says of itself in the state directory.
public struct GuestRecord: Equatable, Sendable {
    /// What the guest is doing.
    ///
    ///     booting -> running <-> paused
    ///        |          |          |
    ///        +----------+----------+--> stopping
    public enum State: String, CaseIterable, Sendable {
        case booting, running, paused, stopping

        fileprivate var padding: String { String(repeating: ".", count: 8 - rawValue.utf8.count) }
    }

    public var name: String
    /// The process of the VMM, by its number in its own PID namespace.
    public var process: Int32
    /// That PID namespace (the inode of its file in /proc); 0 when it is unknown.
    public var processNamespace: UInt64
    /// The size of the guest's RAM in bytes.
    public var memoryBytes: UInt64
    public var cpuCount: Int
    /// A label for people: which kernel or payload this is.
    public var image: String
    /// When the VMM started, in nanoseconds of the realtime clock.
    public var startedUnixNanoseconds: UInt64
    /// The same by the clock that counts from the host's start and is never set; nil in the record of an older VMM.
    public var startedBootNanoseconds: UInt64?
    public var state: State
    public var guestIndex: UInt32
    /// The socket of the broker that it shares memory through; nil when it does not.
    public var broker: String?
    /// Whether its VMM is confined; nil in the record of an older VMM.
    public var isConfined: Bool?

    public init(
        name: String, process: Int32, memoryBytes: UInt64, cpuCount: Int, image: String,
        startedUnixNanoseconds: UInt64, startedBootNanoseconds: UInt64? = nil, state: State,
        guestIndex: UInt32, processNamespace: UInt64 = 0, broker: String? = nil,
        isConfined: Bool? = nil
    ) {
        self.name = name
        self.process = process
        self.memoryBytes = memoryBytes
        self.cpuCount = cpuCount
        self.image = image
        self.startedUnixNanoseconds = startedUnixNanoseconds
        self.startedBootNanoseconds = startedBootNanoseconds
        self.state = state
        self.guestIndex = guestIndex
        self.processNamespace = processNamespace
        self.broker = broker
        self.isConfined = isConfined
    }

    /// Why a text is no record: for people, to stand behind the file's name.
    public struct Malformed: Error, Equatable, Sendable {
        public let reason: String
    }

    /// Reads the text of a record file.
    public init(text: String) throws(Malformed) {
        let values = KeyValueText(parsing: text)
        func missing(_ key: String) -> Malformed {
            // A disk that was full left such records.
            if text.utf8.allSatisfy({ $0 == 0 }) {
                return Malformed(reason: "it is \(text.isEmpty ? "empty" : "nothing but zeros")")
            }
            return Malformed(reason: "no usable '\(key)' in the record of a guest")
        }
        guard let process = values.number("pid", as: Int32.self), process > 0 else { throw missing("pid") }
        guard let name = values["name"] else { throw missing("name") }
        guard let memory = values.number("memory_bytes", as: UInt64.self) else {
            throw missing("memory_bytes")
        }
        guard let cpus = values.number("cpus", as: Int.self) else { throw missing("cpus") }
        guard let started = values.number("started_unix_ns", as: UInt64.self) else {
            throw missing("started_unix_ns")
        }
        guard let state = values["state"].flatMap(State.init(rawValue:)) else { throw missing("state") }
        self.init(
            name: name, process: process, memoryBytes: memory, cpuCount: cpus,
            image: OneLine.label(values["image"] ?? ""),
            startedUnixNanoseconds: started, startedBootNanoseconds: values.number("started_boot_ns"),
            state: state, guestIndex: values.number("guest_index") ?? 0,
            processNamespace: values.number("pid_namespace") ?? 0, broker: values["broker"],
            isConfined: values["confined"].map { $0 == "yes" })
    }

    /// How long it has run; nil when its record does not say.
    /// - Parameters:
    ///   - boot: the clock that counts from the host's start, in nanoseconds.
    public func uptimeSeconds(boot: UInt64) -> UInt64? {
        startedBootNanoseconds.map { boot > $0 ? (boot - $0) / 1_000_000_000 : 0 }
    }

    /// The text of the record file. Its length does not depend on the state, which is written over while others read: what is put
    /// together of two states is none.
    public var text: String {
        let boot = startedBootNanoseconds.map { [("started_boot_ns", "\($0)")] } ?? []
        let optional =
            (broker.map { [("broker", $0)] } ?? [])
            + (isConfined.map { [("confined", $0 ? "yes" : "no")] } ?? [])
        return KeyValueText.text(
            [
                ("pid", "\(process)"), ("pid_namespace", "\(processNamespace)"), ("name", name),
                ("memory_bytes", "\(memoryBytes)"),
                ("cpus", "\(cpuCount)"), ("image", image), ("started_unix_ns", "\(startedUnixNanoseconds)"),
            ] + boot + [("state", state.rawValue), ("pad", state.padding), ("guest_index", "\(guestIndex)")]
                + optional)
    }
}
