import Foundation
import LinuxHost
import Testing
import TestSupport

/// The built `mingle` with one command line; its output goes to files of a temporary folder.
final class Mingle {
    /// Seconds of ``Pace`` within which whatever a guest is asked comes, or it hangs.
    static let patience = 300.0
    /// Seconds after which a guest ends by itself, in case that its test does not live to end it.
    static let leash = "7200"

    /// Where `mingle` and `mingle-vmm` are: `MINGLE_PROGRAMS`, else where the package's build puts them.
    static let programs: String = {
        if let folder = ProcessInfo.processInfo.environment["MINGLE_PROGRAMS"], !folder.isEmpty {
            return folder
        }
        let own = try? FileManager.default.destinationOfSymbolicLink(atPath: "/proc/self/exe")
        return own.map { ($0 as NSString).deletingLastPathComponent } ?? "."
    }()

    let folder: TemporaryDirectory
    private let runtime: TemporaryDirectory
    let child: ChildProcess

    /// - Parameter runtime: the folder of the state directory; guests see each other in `ps` only within it.
    init(_ arguments: [String], input: ChildProgram.Stream = .nothing, runtime: TemporaryDirectory? = nil)
        throws
    {
        let folder = try TemporaryDirectory()
        self.folder = folder
        let runtime = runtime ?? folder
        self.runtime = runtime
        chmod(runtime.path, 0o700)
        if arguments.first == "run" { HugePages.allow(!arguments.contains("--sharing")) }
        child = try ChildProcess(
            Self.programs + "/mingle", arguments, environment: ["XDG_RUNTIME_DIR": runtime.path],
            streams: [input, .into(folder.path("output")), .into(folder.path("errors"))])
    }

    var output: String { folder.text("output") }
    var errors: String { folder.text("errors") }

    /// What it said, how it ended.
    struct Result {
        let status: Int32
        /// Standard output without carriage returns.
        let output: String
        let errors: String

        /// The lines of the output that do not come from the kernel or from init.
        var lines: [String] {
            output.split(separator: "\n").map(String.init).filter {
                !$0.hasPrefix("[") && !$0.hasPrefix("mingle: init")
            }
        }
    }

    func wait() throws -> Result {
        let status = try child.wait(within: Self.patience) { diagnosis }
        return Result(
            status: status, output: String(output.unicodeScalars.filter { $0 != "\r" }), errors: errors)
    }

    /// Waits until it has said this: what a guest says before its command begins is on standard error.
    func waitFor(_ text: String) throws {
        let said = eventually(within: Self.patience) {
            (output + errors).contains(text) || child.finish() != nil
        }
        guard said, (output + errors).contains(text) else {
            throw Failure("it did not say '\(text)'. \(diagnosis)\n\(HostState.description)")
        }
    }

    /// What it said, how it ended, and what every guest of its state directory is at: registers, interrupts, threads.
    var diagnosis: String {
        let status = child.finish().map { "it ended with \($0)" } ?? "it runs"
        var parts = ["\(status)\noutput: \(output)\nerrors: \(errors)"]
        let controls = runtime.path("mingle/control")
        for name in ((try? FileManager.default.contentsOfDirectory(atPath: controls)) ?? []).sorted() {
            do {
                let control = try ControlSocket("\(controls)/\(name)", within: 5)
                parts.append("-- guest \(try control.ask("stats"))\n\(try control.ask("debug"))")
            } catch { parts.append("-- guest \(name): \(error)") }
        }
        return parts.joined(separator: "\n")
    }

    /// One that runs to its end.
    static func run(
        _ arguments: [String], input: ChildProgram.Stream = .nothing, runtime: TemporaryDirectory? = nil
    )
        throws -> Result
    {
        try Mingle(arguments, input: input, runtime: runtime).wait()
    }

    /// A guest that runs a line of shell.
    static func shell(_ line: String, _ options: [String] = []) throws -> Result {
        let result = try run(["run", "--timeout", leash] + options + ["--", "sh", "-c", line])
        guard result.status == 0 else {
            throw Failure("status \(result.status)\noutput: \(result.output)\nerrors: \(result.errors)")
        }
        return result
    }

    /// The path of an image in the cache.
    static func image(_ name: String) throws -> String {
        let result = try run(["images", "path", name])
        guard result.status == 0, let path = result.lines.first else {
            throw Failure("images path \(name): \(result.errors)")
        }
        return path
    }
}

extension Mingle.Result {
    /// The rest of the first line that starts with this.
    func value(_ prefix: String) throws -> String {
        let line = try #require(lines.first { $0.hasPrefix(prefix) }, "no '\(prefix)' in: \(output)")
        return line.dropFirst(prefix.count).trimmingCharacters(in: .whitespaces)
    }
}

/// Huge pages for guest memory, in the lab: a stock kernel boots in half the time with them. Without, as hosts have it, when
/// memory is to be shared page by page.
enum HugePages {
    private static let file = "/sys/kernel/mm/transparent_hugepage/shmem_enabled"

    static func allow(_ allowed: Bool) {
        guard ProcessInfo.processInfo.environment["MINGLE_LAB"] != nil else { return }
        try? (allowed ? "always" : "never").write(toFile: file, atomically: false, encoding: .utf8)
    }
}
