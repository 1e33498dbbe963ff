import CLinux
import FoundationEssentials
import Glibc
import MingleSupport
import VMMProtocol

/// A guest under `mingle run`, with a report.
struct Guest {
    /// What init prints when user space is reached.
    static let readyText = "mingle: init after "
    let name: String
    let process: MeasuredProcess
    private let reportPath: String

    /// - Parameter words: options and, after `--`, a command of `mingle run`.
    init(_ programs: Programs, name: String, _ words: [String]) throws {
        self.name = name
        reportPath = programs.scratch + "/\(name).json"
        process = try MeasuredProcess(
            [programs.mingle, "run", "--name", name, "--report", reportPath, "--log-level", "error"] + words,
            together: true)
    }

    /// Waits for its end and reads the report. Milliseconds count from before `mingle` was spawned.
    func finish() throws -> (status: Int32, times: Times) {
        let status = try process.end()
        let text = try contents(reportPath)
        guard let report = GuestReport(json: text), let entered = report.entered else {
            throw Failure("\(name) never ran: \(text)")
        }
        func since(_ at: UInt64) -> Double { Double(at - process.spawned) / 1e6 }
        return (
            status,
            Times(
                vmm: since(report.started), built: since(report.built), entered: since(entered),
                ready: report.rings.first { $0.number == UInt64(Doorbell.ready) }.map { since($0.at) })
        )
    }

    /// Milliseconds after `mingle` was spawned.
    struct Times {
        /// `mingle-vmm` begins.
        let vmm: Double
        /// The guest is ready to run: memory, kernel, tables, vCPUs.
        let built: Double
        /// Before the first instruction.
        let entered: Double
        /// The guest said that it is in user space.
        let ready: Double?
    }
}

/// Where things are.
struct Programs {
    let mingle: String
    /// A folder that is ours; removed at the end.
    let scratch: String

    init() throws {
        let own = try FileManager.default.destinationOfSymbolicLink(atPath: "/proc/self/exe")
        let folder = own.split(separator: "/", omittingEmptySubsequences: false).dropLast().joined(
            separator: "/")
        mingle = folder + "/mingle"
        guard access(mingle, X_OK) == 0 else { throw Failure("\(mingle) is missing: run make release") }
        let base = FileManager.default.temporaryDirectory.path
        scratch = base + (base.hasSuffix("/") ? "" : "/") + "mingle-bench-\(getpid())"
        try FileManager.default.createDirectory(
            atPath: scratch, withIntermediateDirectories: false, attributes: [.posixPermissions: 0o700])
        // Apart from the guests that the user has running.
        setenv("XDG_RUNTIME_DIR", scratch, 1)
    }

    func remove() { try? FileManager.default.removeItem(atPath: scratch) }
}
