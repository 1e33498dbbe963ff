import Foundation
import LinuxHost
import TestSupport
import Testing

@testable import MingleSupport
import VMMProtocol

/// Runs the built `mingle`, with a script in the place of its VMM.
@Suite struct CommandLineTests {
    private static let hasKVM = SystemCall.isAccessible("/dev/kvm", mode: R_OK | W_OK)

    private let temporary: TemporaryDirectory
    private let vmm: String
    private let payload: String
    private let kernel: String

    init() throws {
        temporary = try TemporaryDirectory()
        vmm = try temporary.write(
            "vmm", "#!/bin/sh\necho \"$$\"\nfor word; do echo \"$word\"; done\nexit 37\n")
        try #require(chmod(vmm, 0o700) == 0)
        let notes = KernelFileTests.note("Mingle", type: 1, descriptorSize: 8)
        payload = try temporary.write("payload.elf", KernelFileTests.elf(notes: notes))
        kernel = try temporary.write("bzImage", KernelFileTests.bzImage(version: 0x20f))
    }

    private struct Result {
        let status: Int32
        let output: [String]
        let errors: [String]
        let process: Int32
    }

    /// The executable lies beside the test bundle, which is mapped into this process.
    static func executable() throws -> String {
        let maps = try String(contentsOfFile: "/proc/self/maps", encoding: .utf8)
        for line in maps.split(separator: "\n") {
            guard let start = line.firstIndex(of: "/"),
                let bundle = line.range(of: "/minglePackageTests.xctest")
            else { continue }
            return String(line[start..<bundle.lowerBound]) + "/mingle"
        }
        throw SupportError.requirement(problem: "no test bundle in the memory map", advice: "use swift test")
    }

    private func mingle(_ words: String..., vmm: String? = nil) throws -> Result {
        try mingle(words, vmm: vmm)
    }

    private func mingle(_ words: [String], vmm: String? = nil) throws -> Result {
        try finish(
            ChildProgram(try Self.executable(), words),
            [
                "PATH": "/usr/bin:/bin", "HOME": temporary.path, "XDG_RUNTIME_DIR": temporary.path,
                "XDG_CACHE_HOME": temporary.path + "/cache", "MINGLE_VMM": vmm ?? self.vmm,
                "MINGLE_SHARE": temporary.path,
            ])
    }

    private func finish(_ program: ChildProgram, _ environment: [String: String]) throws -> Result {
        var program = program
        program.environment = environment.map { "\($0)=\($1)" }
        let outcome = try ChildProcess.run(program)
        func lines(_ text: String) -> [String] { text.split(separator: "\n").map(String.init) }
        return Result(
            status: outcome.status, output: lines(outcome.output), errors: lines(outcome.errors),
            process: outcome.process)
    }

    @Test(.enabled(if: hasKVM, "needs /dev/kvm"))
    func runBecomesTheVMM() throws {
        let result = try mingle(
            "run", "--kernel", payload, "--name", "p1", "--memory", "4M", "--seed", "7", "--timeout", "9",
            "--sharing", "builtin", "--", "a=1",
            "b=2")
        #expect(result.errors == [])
        #expect(result.status == 37)
        // The lock that others wait for until the VMM is registered: a descriptor, whatever its number.
        var words = result.output
        let lock = try #require(words.firstIndex(of: "--admission"))
        #expect(Int32(words[lock + 1]).map { $0 > 2 } == true)
        words.removeSubrange(lock...lock + 1)
        #expect(
            words == [
                "\(result.process)", "--name", "p1", "--memory", "4194304", "--cpus", "1", "--kernel",
                payload, "--boot",
                "auto", "--serial", "stdio", "--timeout", "9", "--grace", "5", "--log-level", "warning",
                "--state-dir",
                temporary.path + "/mingle", "--seed", "7", "--arguments", "a=1 b=2", "--image", "payload.elf",
                "--control", temporary.path + "/mingle/control/p1", "--sharing", "builtin", "--window",
                "auto",
                "--broker", temporary.path + "/mingle/broker.sock",
            ])
    }

    /// Runs a script of /bin/sh that calls `mingle` as "$0".
    private func shell(_ script: String, _ environment: [String: String] = [:]) throws -> Result {
        try finish(
            ChildProgram("/bin/sh", ["-c", script, try Self.executable()]),
            [
                "PATH": "/usr/bin:/bin:/usr/sbin:/sbin", "HOME": temporary.path,
                "XDG_RUNTIME_DIR": temporary.path, "MINGLE_VMM": vmm, "MINGLE_SHARE": temporary.path,
            ].merging(environment) { $1 })
    }

    private static let canUnshare = (try? ChildProcess("/usr/bin/unshare", ["-m", "true"]).wait()) == 0

    @Test(
        .enabled(if: canUnshare, "needs mounts of its own: run as root"),
        arguments: [
            ("run --kernel payload:x", 125), ("run --bogus", 125), ("ps", 1), ("stats", 1), ("doctor", 1),
            ("stop --all", 1), ("broker status", 1), ("density", 1), ("images list", 1), ("--version", 1),
        ] as [(String, Int32)])
    func withoutProcTheReasonIsSaid(_ words: String, _ status: Int32) throws {
        let result = try shell(
            "exec unshare -m sh -c 'mount -t tmpfs none /proc && exec \"$0\" \(words)' \"$0\"")
        #expect(result.status == status && result.output == [])
        #expect(result.errors.count == 1 && result.errors[0].contains("/proc is not mounted"))
    }

    @Test(arguments: ["XDG_RUNTIME_DIR", "MINGLE_SHARE", "MINGLE_VMM", "MINGLE_BROKER"])
    func variablesThatAreNoUTF8AreNamed(_ name: String) throws {
        for (words, status) in [("run --kernel payload:x", 125), ("ps", 1)] as [(String, Int32)] {
            let result = try shell("export \(name)=/tmp/$(printf 's\\377'); exec \"$0\" \(words)")
            #expect(result.status == status && result.output == [])
            #expect(result.errors.count == 1 && result.errors[0].contains("$\(name) is '/tmp/s\\xff'"))
        }
        // Other names that are not ASCII are fine.
        let result = try shell("mkdir -m 700 \"$HOME/ü\" && XDG_RUNTIME_DIR=\"$HOME/ü\" exec \"$0\" ps")
        #expect(result.status == 0 && result.errors == [])
    }

    @Test(arguments: ["ps", "ps --json", "stats", "broker status"])
    func outputThatIsLostIsAFailure(_ words: String) throws {
        let full = try shell("exec \"$0\" \(words) > /dev/full")
        #expect(full.status == 1)
        #expect(full.errors.count == 1 && full.errors[0].contains("standard output: No space left"))
        // The signal for files that grow too large does not kill.
        let limited = try shell("ulimit -f 0; exec \"$0\" \(words) > \"$HOME/output\"")
        #expect(limited.status == 1)
        #expect(limited.errors.count == 1 && limited.errors[0].contains("ulimit -f"))
    }

    @Test(arguments: [6, 10, 20, 24])
    func tooFewOpenFilesAreTheReason(_ count: Int) throws {
        for words in ["", "--domain lab"] {
            let result = try shell("ulimit -n \(count); exec \"$0\" run --kernel payload:x \(words)")
            #expect(result.status == 125)
            #expect(result.errors.count == 1 && result.errors[0].contains("ulimit -n 1024"))
        }
        let doctor = try shell("ulimit -n \(count); exec \"$0\" doctor")
        #expect(doctor.status == 1)
        #expect(doctor.output.contains { $0.hasPrefix("problem") && $0.contains("host.limits") })
    }

    @Test(arguments: [0, 1, 1000])
    func filesTooSmallForMemoryAreTheReason(_ blocks: Int) throws {
        for words in ["", "--domain lab"] {
            let result = try shell("ulimit -f \(blocks); exec \"$0\" run --kernel payload:x \(words)")
            #expect(result.status == 125)
            #expect(result.errors.count == 1 && result.errors[0].contains("ulimit -f unlimited"))
        }
        let doctor = try shell("ulimit -f \(blocks); exec \"$0\" doctor")
        #expect(doctor.status == 1)
    }

    @Test(.enabled(if: hasKVM, "needs /dev/kvm"))
    func aCommandTravelsInAnInheritedArchive() throws {
        let reader = try temporary.write(
            "reader",
            """
            #!/bin/sh
            while [ $# -gt 0 ]; do
                [ "$1" = --initrd ] && tr '\\0' '|' < "$2" && echo
                [ "$1" = --cmdline ] && echo "$2"
                shift
            done
            """)
        try #require(chmod(reader, 0o700) == 0)
        let initrd = try temporary.write("initrd", "first")
        let result = try mingle(
            "run", "--force", "--kernel", kernel, "--initrd", initrd, "--cmdline", "x=y", "--", "echo", "a b",
            vmm: reader)
        #expect(result.status == 0)
        #expect(result.output.first == "first")
        #expect(result.output.contains { $0.hasPrefix("070701") && $0.contains("echo|a b|") })
        #expect(result.output.last?.hasPrefix("console=ttyS0 quiet") == true)
        #expect(result.output.last?.hasSuffix(" x=y") == true)
        #expect(
            result.errors == ["mingle: warning: the command is run only if the initrd holds Mingle's init"])
    }

    @Test(arguments: [
        ["run", "ls"], ["run", "--memory", "12x"], ["run", "--cpus", "33"], ["run", "--name", "../x"],
        ["run", "--serial", "tcp:1"], ["run", "--timeout", "0"], ["run", "--grace", "-1"],
        ["run", "--boot", "efi"],
        ["run", "--no-initrd", "--initrd", "x"], ["run", "--no-initrd", "--", "ls"],
        ["run", "--kernel", "payload:a", "--cmdline", "b"],
        ["run", "--kernel", "payload:a", "--format", "bzimage"],
        ["run", "--kernel", "file", "--format", "vmlinux"], ["run", "--bogus"], ["stop"],
        ["stop", "--all", "x"],
        ["stop", "../x"], ["completions"], ["completions", "csh"], ["bogus"], ["images", "path"],
        ["run", "--sharing", "ksm"], ["run", "--sharing", "off", "--domain", "lab"],
        ["run", "--domain", "a/b"],
        ["run", "--share-cpu", "0"], ["run", "--window", "wide"],
        ["run", "--domain", "lab", "--dirty-log", "on"],
        ["density", "--guests", "0"], ["density", "--sharing", "off", "--domain", "lab"],
        ["density", "--sharing", "ksm", "--window", "pause"], ["density", "--cpus", "0"],
        ["density", "--sharing", "off", "--share-when-up"],
        ["share", "cpu", "0", "a"], ["share", "on"], ["stats", "../x"], ["broker", "bogus"],
    ])
    func usageErrorsAreOneLine(_ words: [String]) throws {
        let result = try mingle(words)
        #expect(result.status == 64)
        #expect(result.errors.count == 1 && result.errors[0].hasPrefix("mingle: "))
        #expect(result.output.isEmpty)
    }

    @Test func failuresOfRunAreOneLine() throws {
        let cases: [([String], String)] = [
            (["--kernel", "/nonexistent"], "cannot open kernel /nonexistent"),
            (["--kernel", vmm], "neither an ELF file nor a bzImage"),
            (["--kernel", "/"], "not a regular file"), (["--kernel", "debain"], "mingle images list"),
            (["--kernel", "/bin/sh"], "a program for an operating system, not a kernel"),
            (["--kernel", payload, "--report", "/"], "is a directory: name a file with --report"),
            (
                ["--force", "--kernel", kernel, "--serial", "file:/"],
                "is a directory: name a file with --serial"
            ),
            (["--force", "--kernel", kernel, "--no-initrd", "--", "ls"], "leave --no-initrd out"),
            (["--force", "--kernel", kernel, "--memory", "48M"], "the kernel (50M) does not fit in 48M"),
            (["--kernel", kernel, "--memory", "31M"], "--memory 32M or more"),
            (["--kernel", payload, "--memory", "5000001"], "whole pages"),
            (["--kernel", payload, "--boot", "pvh"], "use one of auto, payload"),
            (["--kernel", payload, "--memory", "4000T", "--overcommit"], "--memory 140G or less"),
            (["--force", "--kernel", kernel, "--memory", "257G", "--overcommit"], "--memory 256G or less"),
            (["--kernel", "payload:nope"], "nope"),
        ]
        for (words, text) in cases {
            let result = try mingle(["run"] + words)
            #expect(result.status == 125 && result.errors.count == 1)
            #expect(result.errors.first?.hasPrefix("mingle: error: ") == true)
            #expect(result.errors.first?.contains(text) == true, "\(words)")
        }
        let missing = try mingle("run", "--kernel", payload, vmm: "/nonexistent")
        #expect(missing.status == 125 && missing.errors.first?.contains("$MINGLE_VMM") == true)
    }

    /// As `mingle doctor` sees it.
    private func kernelModeIsEmulated() throws -> Bool {
        try mingle("doctor", "--json").output.contains { $0.contains(#""mode": "emulated""#) }
    }

    @Test(.enabled(if: hasKVM, "needs /dev/kvm"))
    func linuxIsRefusedWhereKernelModeIsEmulatedUnlessForced() throws {
        let isEmulated = try kernelModeIsEmulated()
        // With nothing in the cache, so that it is said before anything is fetched.
        let lines: [[String]] = [
            ["run", "--", "uname", "-a"], ["run", "--kernel", kernel], ["density", "--image", "linux"],
            ["density", "--image", kernel],
        ]
        for words in lines where isEmulated {
            let result = try mingle(words)
            #expect(result.status == (words[0] == "run" ? 125 : 1))
            #expect(result.errors.count == 1 && result.output.isEmpty)
            for text in ["emulates the kernel mode", "payload:NAME", "--force"] {
                #expect(result.errors.first?.contains(text) == true, "\(result.errors)")
            }
        }
        let forced = try mingle("run", "--force", "--kernel", kernel)
        #expect(forced.status == 37 && forced.errors.isEmpty, "the VMM's own status")
        let payloads = try mingle("run", "--kernel", payload)
        #expect(payloads.status == 37 && payloads.errors.isEmpty)
    }

    @Test func psAndStop() throws {
        #expect(try mingle("ps", "--json").output == ["[]"])
        let child = try startShell("exec sleep 100")
        _ = try temporary.state()
        let path = try temporary.write("mingle/guests/web", record(process: child.identifier).text)
        let lock = try HeldLock(path)
        let listed = try mingle("ps")
        #expect(listed.output.count == 2 && listed.output.last?.hasPrefix("web ") == true)
        #expect(try mingle("ps", "--json").output.contains(#"    "name": "web","#))

        let unknown = try mingle("stop", "other")
        #expect(unknown.status == 1 && unknown.errors.first?.contains("no guest called 'other'") == true)
        lock.release()
        let guest = try MingleSupportTests.child(holding: try temporary.write("mingle/guests/web", ""))
        // One that was stopped hears it, too.
        #expect(kill(guest.identifier, SIGSTOP) == 0)
        #expect(
            eventually { (try? mingle("ps").output.last?.contains(" stopped ")) == true }, "ps says so")
        let stopped = try mingle("stop", "web", "--timeout", "20", "--log-level", "error")
        #expect(stopped.status == 0 && stopped.output == ["web: stopped"])
        #expect(try mingle("ps", "--json").output == ["[]"])
    }

    @Test func aGuestThatDoesNotStopIsReported() throws {
        _ = try temporary.state()
        let ready = temporary.path + "/ready"
        let child = try child(
            holding: try temporary.write("mingle/guests/web", ""),
            "trap '' TERM; : > '\(ready)'; while :; do sleep 1; done")
        defer { withExtendedLifetime(child) {} }
        try #require(eventually { SystemCall.exists(ready) }, "the shell ignores the signal")
        let result = try mingle("stop", "--all", "--timeout", "1")
        #expect(result.status == 1 && result.errors.first?.contains("use --force") == true)
        #expect(try mingle("stop", "--force", "web").status == 0)
    }

    @Test func doctorPrintsJSON() throws {
        let result = try mingle("doctor", "--json")
        #expect([0, 1, 2].contains(result.status))
        let text = Data(result.output.joined(separator: "\n").utf8)
        let object = try #require(try JSONSerialization.jsonObject(with: text) as? [String: Any])
        #expect(object.keys.sorted() == ["checks", "exit_code", "verdict", "version"])
        #expect(object["exit_code"] as? Int == Int(result.status))
    }

    @Test func helpVersionAndCompletions() throws {
        #expect(try mingle("--version").output == [Version.current])
        let help = try mingle("run", "--help")
        #expect(help.status == 0 && help.output.contains { $0.contains("128+n") })
        for command in ["run", "ps", "stop", "images", "doctor", "completions"] {
            #expect(try mingle(command, "--help").output.contains { $0.hasPrefix("EXAMPLES") })
        }
        for shell in ["bash", "zsh", "fish"] {
            let result = try mingle("completions", shell)
            #expect(result.status == 0 && result.output.contains { $0.contains("mingle") })
        }
    }

    @Test func aBusyBrokerIsToldFromNone() throws {
        _ = try temporary.state()
        let none = try mingle("broker", "status", "--json")
        #expect(none.status == 0 && none.output == ["null"])
        // Somebody listens, and answers nobody.
        let listener = try PacketSocket.listen(at: temporary.path + "/mingle/broker.sock", backlog: 8)
        for options in [[], ["--json"]] {
            let busy = try mingle(["broker", "status"] + options)
            #expect(busy.status == ExitStatus.brokerBusy && busy.output == [])
            #expect(busy.errors.count == 1 && busy.errors.first?.contains("too busy to answer") == true)
        }
        _ = consume listener
        let left = try mingle("broker", "status")
        #expect(left.status == 0 && left.output == ["no broker runs"])
    }

    @Test func anUntrustedStateDirectoryIsRefused() throws {
        let state = try temporary.state()
        try #require(chmod(state.path, 0o755) == 0)
        let result = try mingle("ps")
        #expect(result.status == 1)
        #expect(result.errors.count == 1 && result.errors[0].contains("chmod 700"))
    }
}
