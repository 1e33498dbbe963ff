import Foundation
import Testing
import TestSupport

/// The built `mingle` with one command line; its output goes to files of a temporary folder.
final class Mingle {
    /// Where `mingle` and `mingle-vmm` are: `MINGLE_PROGRAMS`, else where the package's build puts them.
    static let programs: String = {
        if let folder = ProcessInfo.processInfo.environment["MINGLE_PROGRAMS"], !folder.isEmpty {
            return folder
        }
        let own = try? FileManager.default.destinationOfSymbolicLink(atPath: "/proc/self/exe")
        return own.map { ($0 as NSString).deletingLastPathComponent } ?? "."
    }()

    let folder: TemporaryDirectory
    let child: ChildProcess

    /// - Parameter runtime: the folder of the state directory; guests see each other in `ps` only within it.
    init(_ arguments: [String], input: ChildProcess.Stream = .nothing, runtime: TemporaryDirectory? = nil)
        throws
    {
        let folder = try TemporaryDirectory()
        self.folder = folder
        let runtime = runtime ?? folder
        chmod(runtime.path, 0o700)
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

    func wait(within seconds: Double = 160) throws -> Result {
        do {
            let status = try child.wait(within: seconds)
            return Result(
                status: status, output: String(output.unicodeScalars.filter { $0 != "\r" }), errors: errors)
        } catch { throw Failure("\(error)\noutput: \(output)\nerrors: \(errors)") }
    }

    /// Waits until it has said this: what a guest says before its command begins is on standard error.
    func waitFor(_ text: String, within seconds: Double = 120) throws {
        let said = eventually(within: seconds) { (output + errors).contains(text) || child.finish() != nil }
        guard said, (output + errors).contains(text) else {
            throw Failure("it did not say '\(text)', but: \(output)\nerrors: \(errors)")
        }
    }

    /// One that runs to its end.
    static func run(
        _ arguments: [String], input: ChildProcess.Stream = .nothing, runtime: TemporaryDirectory? = nil
    )
        throws -> Result
    {
        try Mingle(arguments, input: input, runtime: runtime).wait()
    }

    /// A guest that runs a line of shell.
    static func shell(_ line: String, _ options: [String] = []) throws -> Result {
        let result = try run(["run", "--timeout", "150"] + options + ["--", "sh", "-c", line])
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
