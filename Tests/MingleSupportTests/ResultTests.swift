import LinuxHost
import Foundation
import TestSupport
import Testing

@testable import MingleSupport

/// Results that cannot be written, by the built `mingle`.
@Suite struct ResultTests {
    private let temporary: TemporaryDirectory
    init() throws { temporary = try TemporaryDirectory() }

    private func run(_ words: [String], output: ChildProgram.Stream, input: ChildProgram.Stream = .nothing)
        throws
        -> (status: Int32, errors: String)
    {
        let errors = temporary.path + "/errors"
        let child = try ChildProcess(
            CommandLineTests.executable(), words,
            environment: [
                "HOME": temporary.path, "XDG_RUNTIME_DIR": temporary.path,
                "XDG_CACHE_HOME": temporary.path + "/cache", "MINGLE_SHARE": temporary.path,
            ], streams: [input, output, .into(errors)])
        let status = try child.wait(within: 60)
        return (status, try String(contentsOfFile: errors, encoding: .utf8))
    }

    @Test(arguments: [
        ["ps"], ["ps", "--json"], ["stats"], ["stats", "--json"], ["doctor"], ["doctor", "--json"],
        ["images", "list"],
        ["images", "list", "--json"], ["images", "verify"], ["images", "clean"], ["broker", "status"],
        ["completions", "bash"], ["--help"], ["run", "--help"], ["--version"],
        ["--generate-completion-script", "zsh"],
    ])
    func aFullDiskIsAnError(_ words: [String]) throws {
        let result = try run(words, output: .file("/dev/full", O_WRONLY))
        #expect(result.status == 1)
        #expect(
            result.errors.contains("mingle: error: cannot write to standard output: No space left on device"),
            "\(result.errors)")
    }

    @Test func helpIsStillPrinted() throws {
        let output = temporary.path + "/output"
        #expect(try run(["ps", "--help"], output: .into(output)).status == 0)
        #expect(try String(contentsOfFile: output, encoding: .utf8).hasPrefix("OVERVIEW: List the guests"))
        #expect(try run(["--version"], output: .into(output)).status == 0)
        #expect(try String(contentsOfFile: output, encoding: .utf8) == Version.current + "\n")
    }

    @Test func outputsAreNoInputs() throws {
        let kernel = try temporary.write("kernel", "1")
        try #require(symlink(kernel, temporary.path + "/link") == 0)
        let inputs = [(what: "the kernel", path: kernel)]
        for path in [kernel, temporary.path + "/link"] {
            let error = #expect(throws: SupportError.self) {
                try RunChecks.outputs([("--report", path)], inputs: inputs)
            }
            #expect(error?.description == "\(path): is the kernel, too: name another file with --report")
        }
        let new = temporary.path + "/new"
        #expect(throws: SupportError.self) {
            try RunChecks.outputs([("--serial", new), ("--report", new)], inputs: inputs)
        }
        #expect(throws: SupportError.self) { try RunChecks.outputs([("--json", temporary.path)], inputs: []) }
        try RunChecks.outputs([("--serial", new), ("--report", new + "er")], inputs: inputs)
        try RunChecks.outputs([("--serial", "/dev/null"), ("--report", "/dev/null")], inputs: inputs)
    }

    @Test func wholeFilesAreWritten() throws {
        let path = temporary.path + "/figures"
        try WholeFile.write(path, "{}\n")
        #expect(SystemCall.text(of: path) == "{}\n")
        #expect(throws: SupportError.self) { try WholeFile.write("/dev/full", "{}") }
    }
}
