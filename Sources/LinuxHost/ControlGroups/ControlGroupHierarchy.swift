/// A hierarchy of control groups as it is mounted here (cgroups(7)). A folder is one of a control group only if such a
/// mount holds it: where hierarchies of version 1 are, what is between them is a file system like any other.
public struct ControlGroupHierarchy: Equatable, Sendable {
    public enum Version: Sendable { case one, two }

    public let version: Version
    /// Those of version 1; version 2 names them in every group.
    public let controllers: Set<String>
    /// Where it is mounted.
    let mountPoint: String
    /// The group that is mounted there, as `/proc/PID/cgroup` calls it.
    let mountRoot: String
    private let root: String

    /// All that are mounted.
    /// - Parameter root: a folder in front of /proc and /sys, for tests.
    public static func all(root: String = "") -> [ControlGroupHierarchy] {
        let text = SystemCall.text(of: root + "/proc/self/mountinfo", limit: 1 << 20) ?? ""
        return text.split(separator: "\n").compactMap { ControlGroupHierarchy(line: $0, root: root) }
    }

    /// The one that memory is charged in: that of version 1 with the controller, else that of version 2.
    public static func ofMemory(root: String = "") -> ControlGroupHierarchy? {
        let all = all(root: root)
        return all.first { $0.controllers.contains("memory") } ?? all.first { $0.version == .two }
    }

    /// Reads a line of mountinfo: `number parent device root point options [fields] - type source options`.
    init?(line: Substring, root: String = "") {
        let fields = line.split(separator: " ")
        guard let dash = fields.firstIndex(of: "-"), dash >= 6, fields.count > dash + 3 else { return nil }
        switch fields[dash + 1] {
        case "cgroup":
            version = .one
            controllers = Set(fields[dash + 3].split(separator: ",").map(String.init))
        case "cgroup2":
            version = .two
            controllers = []
        default: return nil
        }
        mountRoot = Self.unescaped(fields[3])
        mountPoint = root + Self.unescaped(fields[4])
        self.root = root
    }

    /// mountinfo writes blanks as `\\040`.
    private static func unescaped(_ field: Substring) -> String {
        guard field.contains("\\") else { return String(field) }
        var bytes: [UInt8] = []
        var rest = Array(field.utf8)[...]
        while let byte = rest.popFirst() {
            let digits = rest.prefix(3)
            if byte == UInt8(ascii: "\\"), digits.count == 3,
                let value = UInt8(String(decoding: digits, as: UTF8.self), radix: 8)
            {
                bytes.append(value)
                rest = rest.dropFirst(3)
            } else {
                bytes.append(byte)
            }
        }
        return String(decoding: bytes, as: UTF8.self)
    }

    /// The group of a process in this hierarchy; nil when the process is gone.
    /// - Parameter process: its number, or `self`.
    public func group(of process: String = "self") -> String? {
        ControlGroupMembership.places(SystemCall.text(of: "\(root)/proc/\(process)/cgroup") ?? "").first {
            version == .two ? $0.controllers.isEmpty : !$0.controllers.isDisjoint(with: controllers)
        }?.group
    }

    /// The folder of a group; nil when it is not below what is mounted here.
    public func folder(of group: String) -> String? {
        if group == "/.." || group.hasPrefix("/../") { return nil }
        if mountRoot == "/" { return group == "/" ? mountPoint : mountPoint + group }
        if group == mountRoot { return mountPoint }
        guard group.hasPrefix(mountRoot + "/") else { return nil }
        return mountPoint + group.dropFirst(mountRoot.count)
    }

    /// A group and those above it that can be seen here, the topmost last.
    public func upwards(_ group: String) -> [(group: String, folder: String)] {
        ControlGroupMembership.upwards(group).compactMap { group in folder(of: group).map { (group, $0) } }
    }

    /// Whether groups below a folder have their memory counted.
    public func countsMemory(below folder: String) -> Bool {
        guard version == .two else { return controllers.contains("memory") }
        let words = (SystemCall.text(of: folder + "/cgroup.subtree_control") ?? "").split {
            $0 == " " || $0 == "\n"
        }
        return words.contains("memory")
    }

    /// Moves this process, and what it starts from now on, into the group of a folder.
    package static func move(to folder: String) -> Result<Void, LinuxError> {
        SystemCall.overwrite(folder + "/cgroup.procs", with: "\(HostProcess.number)")
    }

    /// The file that tells how much memory a group has: only a group that counts it has one.
    public var usageFile: String { version == .one ? "memory.usage_in_bytes" : "memory.current" }
}

/// A limit that a control group has, and that what runs in it can feel.
public struct ControlGroupLimit: Equatable, Sendable {
    public enum Kind: String, Sendable { case memory, processes, processorTime, processors, weight }
    public var kind: Kind
    public var group: String
    /// What is allowed: bytes, processes, percent of one processor, processors, or percent of the usual weight.
    public var allowance: UInt64
    /// The file that says so.
    public var file: String

    /// For people: `60M of memory (memory.max of control group /x)`.
    public var description: String {
        let what =
            switch kind {
            case .memory: "\(PlainSize.text(allowance)) of memory"
            case .processes: "\(allowance) processes and threads"
            case .processorTime: "\(allowance)% of one processor"
            case .processors: allowance == 1 ? "1 processor" : "\(allowance) processors"
            case .weight: "\(allowance)% of the usual share of processors"
            }
        return "\(what) (\(file) of control group \(group))"
    }
}

/// Sizes in messages.
enum PlainSize {
    /// The largest unit that leaves a whole number.
    static func text(_ bytes: UInt64) -> String {
        let units: [(String, UInt64)] = [("G", 1 << 30), ("M", 1 << 20), ("K", 1 << 10)]
        guard let unit = units.first(where: { bytes >= $0.1 && bytes.isMultiple(of: $0.1) }) else {
            return "\(bytes) bytes"
        }
        return "\(bytes / unit.1)\(unit.0)"
    }
}

/// What a host has, for telling limits from what says nothing.
public struct HostSize: Equatable, Sendable {
    public var memoryBytes: UInt64
    public var processorCount: Int

    public init(memoryBytes: UInt64, processorCount: Int) {
        self.memoryBytes = memoryBytes
        self.processorCount = processorCount
    }

    /// - Parameter root: a folder in front of /proc and /sys, for tests.
    public init(root: String = "") {
        let memory = SmallFile.table(SystemCall.text(of: root + "/proc/meminfo") ?? "")["MemTotal"]
        memoryBytes = memory.map { $0 << 10 } ?? .max
        processorCount = SystemCall.text(of: root + "/sys/devices/system/cpu/online").map(Self.count) ?? 1
    }

    /// How many numbers a list such as `0-3,8` has.
    static func count(_ list: String) -> Int {
        list.split { $0 == "," || $0.isWhitespace }.reduce(0) { sum, range in
            let ends = range.split(separator: "-").compactMap { Int($0) }
            guard let first = ends.first, let last = ends.last, last >= first else { return sum }
            return sum + last - first + 1
        }
    }
}

extension ControlGroupHierarchy {
    /// More than these are no concern of two processes.
    private static let processesEnough: UInt64 = 256

    /// The limits of one group that can be felt in it.
    public func limits(of group: String, _ host: HostSize) -> [ControlGroupLimit] {
        guard let folder = folder(of: group) else { return [] }
        var limits: [ControlGroupLimit] = []
        func add(_ kind: ControlGroupLimit.Kind, _ file: String, _ allowance: UInt64?, below: UInt64) {
            guard let allowance, allowance < below else { return }
            limits.append(ControlGroupLimit(kind: kind, group: group, allowance: allowance, file: file))
        }
        func number(_ file: String) -> UInt64? { SmallFile.number(in: folder + "/" + file) }
        let processors = UInt64(host.processorCount)
        for file in version == .one ? ["memory.limit_in_bytes"] : ["memory.max", "memory.high"] {
            add(.memory, file, number(file), below: host.memoryBytes)
        }
        add(.processes, "pids.max", number("pids.max"), below: Self.processesEnough)
        let quota =
            version == .one
            ? Self.percent(number("cpu.cfs_quota_us"), of: number("cpu.cfs_period_us"))
            : Self.percent(of: SystemCall.text(of: folder + "/cpu.max") ?? "")
        add(.processorTime, version == .one ? "cpu.cfs_quota_us" : "cpu.max", quota, below: 100 * processors)
        let set = (SystemCall.text(of: folder + "/cpuset.cpus")).map { UInt64(HostSize.count($0)) }
        if let set, set > 0 { add(.processors, "cpuset.cpus", set, below: processors) }
        let (weight, usual): (String, UInt64) =
            version == .one ? ("cpu.shares", 1024) : ("cpu.weight", 100)
        add(.weight, weight, number(weight).map { $0 * 100 / usual }, below: 100)
        return limits
    }

    private static func percent(_ quota: UInt64?, of period: UInt64?) -> UInt64? {
        guard let quota, let period, period > 0 else { return nil }
        return quota.multipliedReportingOverflow(by: 100).partialValue / period
    }

    /// Reads `cpu.max`: `quota period`, or `max period`.
    private static func percent(of text: String) -> UInt64? {
        let words = text.split { $0 == " " || $0 == "\n" }
        guard words.count == 2 else { return nil }
        return percent(UInt64(words[0]), of: UInt64(words[1]))
    }
}
