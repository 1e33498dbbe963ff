public import VMMProtocol

/// One thing that `mingle doctor` looked at.
public struct HostCheck: Equatable, Sendable {
    /// How bad it is.
    public enum Status: String, Sendable {
        /// As it should be.
        case ok
        /// Works, but something is slower, tighter or missing.
        case warning
        /// Guests cannot run because of it.
        case problem
    }

    /// A stable name, such as `kvm.device`.
    public var id: String
    public var status: Status
    /// One line for people.
    public var summary: String
    /// The command that mends it, or what else to do.
    public var remedy: String?
    /// What was measured, under stable names.
    public var values: [(key: String, value: JSONValue)]

    public init(
        _ id: String, _ status: Status, _ summary: String, remedy: String? = nil,
        values: [(key: String, value: JSONValue)] = []
    ) {
        self.id = id
        self.status = status
        self.summary = summary
        self.remedy = remedy
        self.values = values
    }

    public static func == (left: HostCheck, right: HostCheck) -> Bool { left.json == right.json }

    /// The check as a JSON object with the keys id, status, summary, remedy and values.
    public var json: JSONValue {
        .object([
            ("id", .string(id)), ("status", .string(status.rawValue)), ("summary", .string(summary)),
            ("remedy", .optional(remedy)), ("values", .object(values)),
        ])
    }
}

/// Whether the kernel mode of a guest is executed by the processor.
public enum KernelModeSupport: Equatable, Sendable {
    /// By the processor: Linux guests run.
    case hardware
    /// Instruction by instruction in software: Linux guests do not come up, payloads run at full speed.
    case emulated
    /// It could not be found out; the text says why.
    case unknown(reason: String)
}

/// All checks and what they amount to.
public struct DoctorReport: Sendable {
    /// What this host can run.
    public enum Verdict: String, Sendable {
        /// Linux guests and payloads, natively.
        case linux
        /// Payloads only; Linux guests need the nested lab.
        case payloads
        case nothing

        /// The exit code of `mingle doctor`.
        public var exitCode: Int32 {
            switch self {
            case .linux: 0
            case .nothing: 1
            case .payloads: 2
            }
        }

        var sentence: String {
            switch self {
            case .linux: "This host runs Linux guests and payloads natively."
            case .payloads: "This host runs payloads only; Linux guests need the nested lab."
            case .nothing: "This host cannot run guests yet."
            }
        }
    }

    public let checks: [HostCheck]
    public let verdict: Verdict

    /// Judges: any problem means that nothing runs; otherwise kernel mode decides.
    public init(checks: [HostCheck], kernelMode: KernelModeSupport) {
        self.checks = checks
        if checks.contains(where: { $0.status == .problem }) {
            verdict = .nothing
        } else {
            verdict = kernelMode == .hardware ? .linux : .payloads
        }
    }

    /// The report for people.
    public var text: String {
        let width = (checks.map(\.id.count).max() ?? 0) + 2
        var lines: [String] = []
        for check in checks {
            let status = check.status.rawValue
            let head =
                status + String(repeating: " ", count: 9 - status.count)
                + check.id + String(repeating: " ", count: width - check.id.count)
            lines.append(head + check.summary)
            guard let remedy = check.remedy else { continue }
            let margin = String(repeating: " ", count: 9 + width)
            lines += remedy.split(separator: "\n").map { margin + "-> " + $0 }
        }
        return (lines + ["", verdict.sentence]).joined(separator: "\n")
    }

    /// The report as a JSON object with the keys version, verdict, exit_code and checks.
    public func json(version: String) -> JSONValue {
        .object([
            ("version", .string(version)), ("verdict", .string(verdict.rawValue)),
            ("exit_code", .integer(Int64(verdict.exitCode))), ("checks", .array(checks.map(\.json))),
        ])
    }
}
