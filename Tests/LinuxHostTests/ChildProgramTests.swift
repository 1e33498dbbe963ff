import Foundation
import TestSupport
import Testing

@testable import LinuxHost

@Suite struct ChildProgramTests {
    private func shell(_ script: String, _ change: (inout ChildProgram) -> Void = { _ in }) throws
        -> ChildProcess.Outcome
    {
        var program = ChildProgram("/bin/sh", ["-c", script, "zero", "one two"])
        change(&program)
        return try ChildProcess.run(program)
    }

    @Test func wordsEnvironmentAndStatus() throws {
        let plain = try shell("echo \"$0|$1|$SET\"; echo bad >&2; exit 7") { $0.environment = ["SET=x=y"] }
        #expect(plain.output == "zero|one two|x=y\n" && plain.errors == "bad\n" && plain.status == 7)
        #expect(try shell("kill -9 $$").status == -9)
        // Nothing of ours, unless it is asked for. The shell sets some itself.
        #expect(try shell("/usr/bin/env | grep -c ^PATH=").output == "0\n")
        let path = try #require(ProcessInfo.processInfo.environment["PATH"])
        #expect(try shell("echo \"$PATH\"") { $0.environment = nil }.output == path + "\n")
        let name = try #require(HostProcess.collect(try named("true-to-its-name").start(), wait: true))
        #expect(name == .exited(0))
    }

    private func named(_ name: String) -> ChildProgram {
        ChildProgram("/bin/sh", ["-c", "tr '\\0' '\\n' < /proc/$$/cmdline | grep -qx \(name)"], name: name)
    }

    @Test func directoryAndSearchPath() throws {
        let folder = try TemporaryDirectory()
        let there = try shell("pwd -P") { $0.directory = folder.path }
        #expect(there.output == URL(fileURLWithPath: folder.path).resolvingSymlinksInPath().path + "\n")
        var program = ChildProgram("true")
        #expect(throws: LinuxError(operation: "posix_spawn", code: ENOENT, subject: "true")) {
            try program.start()
        }
        program.searchesPath = true
        #expect(HostProcess.collect(try program.start(), wait: true) == .exited(0))
        var nowhere = ChildProgram("/bin/sh")
        nowhere.directory = folder.path("none")
        #expect(throws: LinuxError.self) { try nowhere.start() }
    }

    /// Each has its number, whatever numbers they had here.
    @Test func descriptorsByNumber() throws {
        let folder = try TemporaryDirectory()
        let open = try (0..<3).map { number in
            try OwnedDescriptor.open(folder.path("\(number)"), flags: O_RDWR | O_CREAT).release()
        }
        defer { for number in open { close(number) } }
        var program = ChildProgram(
            "/bin/sh", ["-c", "for n in 3 4 5; do echo $n >&$n; done; echo out"])
        program.streams = [
            .nothing, .into(folder.path("list")), .onto(folder.path("errors")), .descriptor(open[2]),
            .descriptor(open[0]), .descriptor(open[1]),
        ]
        #expect(HostProcess.collect(try program.start(), wait: true) == .exited(0))
        #expect(["0", "1", "2"].map(folder.text) == ["4\n", "5\n", "3\n"])
        #expect(folder.text("errors") == "")
        #expect(folder.text("list") == "out\n")
        var lost = program
        lost.streams = [.file(folder.path("none"), O_RDONLY)]
        #expect(throws: LinuxError.self) { try lost.start() }
    }

    @Test func signalsAndSession() async throws {
        // In a process of its own: what is blocked or ignored holds for all its tests.
        await #expect(processExitsWith: .success) {
            signal(SIGHUP, SIG_IGN)
            HostProcess.block([SIGTERM])
            func output(_ words: [String], _ keeps: Bool) throws -> [Substring] {
                // No shell: one blocks signals itself while it waits.
                var program = ChildProgram(words[0], Array(words.dropFirst()))
                program.searchesPath = true
                program.keepsIgnoredSignals = keeps
                program.leads = .session
                return try ChildProcess.run(program).output.split(separator: "\n")
            }
            func masks(_ keeps: Bool) throws -> [UInt64] {
                try output(["grep", "-E", "^Sig(Blk|Ign):", "/proc/self/status"], keeps).map {
                    // The C library makes its own two signals ignored.
                    (UInt64($0.split(separator: "\t").last ?? "", radix: 16) ?? .max) & ~(3 << 31)
                }
            }
            let numbers = try output(["cut", "-d", " ", "-f", "1,6", "/proc/self/stat"], false)
            guard let numbers = numbers.first?.split(separator: " "), numbers.count == 2,
                numbers[0] == numbers[1]
            else { exit(2) }
            let hangUp = UInt64(1) << (SIGHUP - 1)
            guard try masks(false) == [0, 0] else { exit(3) }
            guard try masks(true).map({ $0 & hangUp }) == [0, hangUp] else { exit(4) }
            exit(0)
        }
    }
}
