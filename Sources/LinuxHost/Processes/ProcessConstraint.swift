/// Something that a process was given by whoever started it, and that keeps it from working as it would alone on the host:
/// a limit, a priority, a control group's limit.
public struct ProcessConstraint: Equatable, Sendable {
    public enum Kind: Equatable, Sendable {
        case fileSize, openFiles, addressSpace, dataSize, processorSeconds, priority, scheduling, processors
        /// The kernel ends it before others when memory is gone.
        case endangered
        case group(ControlGroupLimit.Kind, name: String)
    }

    public var kind: Kind
    /// Of two of the same kind, the one with less is tighter.
    public var allowance: UInt64
    /// For people, without a verb: `files of at most 100000K (ulimit -f)`.
    public var description: String

    public init(kind: Kind, allowance: UInt64, description: String) {
        self.kind = kind
        self.allowance = allowance
        self.description = description
    }

    /// Whether it is a limit of the memory that is charged to the process.
    public var limitsMemory: Bool {
        if case .group(.memory, _) = kind { true } else { false }
    }

    /// Whether somebody with constraints of their own would notice that another process has this one.
    public func isTighter(than own: [ProcessConstraint]) -> Bool {
        !own.contains { $0.kind == kind && $0.allowance <= allowance }
    }

    /// Those of a process, as the kernel tells them to everybody; none when there is no such process, or no /proc.
    /// - Parameters:
    ///   - process: its number, or `self`.
    ///   - root: a folder in front of /proc and /sys, for tests.
    public static func all(of process: String = "self", root: String = "") -> [ProcessConstraint] {
        func text(_ file: String) -> String { SystemCall.text(of: "\(root)/proc/\(process)/\(file)") ?? "" }
        let host = HostSize(root: root)
        return limits(text("limits")) + scheduling(text("stat")) + processors(text("status"), host)
            + danger(text("oom_score_adj")) + groups(process, host, root)
    }

    /// Fewer are too few for a broker with many guests.
    public static let openFilesEnough: UInt64 = 1024

    /// Reads `/proc/PID/limits`: a name of 25 characters, the limit, the hard limit, a unit.
    static func limits(_ text: String) -> [ProcessConstraint] {
        func kind(_ name: String) -> (Kind, (UInt64) -> String)? {
            switch name {
            case "Max file size":
                (.fileSize, { "files of at most \(PlainSize.text($0)) (ulimit -f)" })
            case "Max open files": (.openFiles, { "\($0) open files (ulimit -n)" })
            case "Max address space":
                (.addressSpace, { "\(PlainSize.text($0)) of address space (ulimit -v)" })
            case "Max data size": (.dataSize, { "\(PlainSize.text($0)) of data (ulimit -d)" })
            case "Max cpu time": (.processorSeconds, { "\($0) s of processor time (ulimit -t)" })
            default: nil
            }
        }
        return text.split(separator: "\n").compactMap { line in
            guard line.count > 25 else { return nil }
            let name = String(line.prefix(25).reversed().drop { $0 == " " }.reversed())
            guard let (kind, words) = kind(name),
                let limit = line.dropFirst(25).split(separator: " ").first.flatMap({ UInt64($0) })
            else { return nil }
            if kind == .openFiles, limit >= openFilesEnough { return nil }
            return ProcessConstraint(kind: kind, allowance: limit, description: words(limit))
        }
    }

    /// Reads `/proc/PID/stat`: behind the name in parentheses, the 17th field is the nice value, the 39th the policy.
    static func scheduling(_ text: String) -> [ProcessConstraint] {
        guard let fields = ProcessStat(text)?.fields, fields.count > 38, let nice = Int(fields[16]),
            let policy = Int(fields[38])
        else { return [] }
        var found: [ProcessConstraint] = []
        if nice > 0 {
            found.append(
                ProcessConstraint(
                    kind: .priority, allowance: UInt64(19 - min(19, nice)), description: "nice value \(nice)")
            )
        }
        // SCHED_BATCH and SCHED_IDLE (sched(7))
        if policy == 3 || policy == 5 {
            found.append(
                ProcessConstraint(
                    kind: .scheduling, allowance: policy == 5 ? 0 : 1,
                    description: "scheduling class \(policy == 5 ? "idle" : "batch")"))
        }
        return found
    }

    /// Reads `/proc/PID/status`.
    static func processors(_ text: String, _ host: HostSize) -> [ProcessConstraint] {
        guard let line = text.split(separator: "\n").first(where: { $0.hasPrefix("Cpus_allowed_list:") })
        else { return [] }
        let list = line.dropFirst("Cpus_allowed_list:".count).filter { !$0.isWhitespace }
        let count = HostSize.count(list)
        guard count > 0, count < host.processorCount else { return [] }
        return [
            ProcessConstraint(
                kind: .processors, allowance: UInt64(count),
                description: "processors \(list) of \(host.processorCount) (CPU mask or cpuset)")
        ]
    }

    /// Reads `/proc/PID/oom_score_adj`: up to 1000, which is first.
    static func danger(_ text: String) -> [ProcessConstraint] {
        guard let score = Int(text.prefix { $0 == "-" || $0.isNumber }), score > 0 else { return [] }
        return [
            ProcessConstraint(
                kind: .endangered, allowance: UInt64(1000 - min(1000, score)),
                description: "oom_score_adj \(score), so that it is ended early when memory is gone")
        ]
    }

    private static func groups(_ process: String, _ host: HostSize, _ root: String) -> [ProcessConstraint] {
        ControlGroupHierarchy.all(root: root).flatMap { hierarchy -> [ProcessConstraint] in
            guard let group = hierarchy.group(of: process) else { return [] }
            return hierarchy.upwards(group).flatMap { hierarchy.limits(of: $0.group, host) }
                // The CPU mask tells of these.
                .filter { $0.kind != .processors }
                .map {
                    ProcessConstraint(
                        kind: .group($0.kind, name: $0.group), allowance: $0.allowance,
                        description: $0.description)
                }
        }
    }
}
