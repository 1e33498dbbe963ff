import Foundation
import LinuxHost
import Testing
import TestSupport

extension HostKVM {
    @Suite("How a guest ends, as the shell sees it")
    struct ExitTests {
        @Test("the guest's own status", arguments: [0, 1, 2, 64, 120, 125, 255])
        func status(code: Int) throws {
            let guest = try VMMProcess("hello", "code=\(code)", processors: code % 2 + 1)
            #expect(try guest.wait() == Int32(code))
            #expect(guest.output.contains("hello: vcpu 0 of \(code % 2 + 1), guest 0\n"))
            #expect(guest.errors.isEmpty)
        }

        @Test(
            "exit, power-off, reset and panic ports",
            arguments: [
                (0xD00, 0x1234_5607, 4, 7), (0x604, 0x3400, 2, 0), (0xCF9, 0x06, 1, 120),
                (0x64, 0xFE, 1, 120),
                (0x505, 0x01, 1, 121),
            ] as [(UInt16, UInt32, Int, Int32)])
        func ports(port: UInt16, value: UInt32, size: Int, status: Int32) throws {
            let folder = try TemporaryDirectory()
            let code = TinyPayload.out(port, value, size: size) + TinyPayload.exit(99)
            let kernel = try folder.write("tiny.elf", TinyPayload.file(code))
            #expect(try VMMProcess(kernel: kernel, folder: folder).wait() == status)
        }

        @Test("a triple fault is 122, with registers and code")
        func tripleFault() throws {
            let folder = try TemporaryDirectory()
            let kernel = try folder.write("tiny.elf", TinyPayload.file(TinyPayload.fault))
            let guest = try VMMProcess(kernel: kernel, folder: folder)
            #expect(try guest.wait() == 122)
            #expect(guest.errors.contains("triple fault"))
            #expect(guest.errors.contains("rax=1122334455667788"))
            #expect(guest.errors.contains("rip=000000000020000a"))
            #expect(guest.errors.contains("code at rip: c6 04 25 00 00 00 00 01"))
        }

        @Test("a write to page 0 and HLT in ring 3 are triple faults", arguments: ["triplefault", "hlt"])
        func faults(action: String) throws {
            let guest = try VMMProcess("hello", "do=\(action)", processors: 2)
            #expect(try guest.wait() == 122)
            #expect(guest.errors.contains("triple fault"))
            if action == "hlt" { #expect(guest.errors.contains("code at rip: f4 ")) }
        }

        @Test("an instruction that KVM cannot emulate is 123, with the suberror and the bytes")
        func emulationFailure() throws {
            let guest = try VMMProcess("hello", "do=emulfail")
            #expect(try guest.wait() == 123)
            #expect(guest.errors.contains("KVM_EXIT_INTERNAL_ERROR, KVM_INTERNAL_ERROR_EMULATION"))
            // FLD of 80 or 64 bits from memory: DB or DD.
            #expect(guest.errors.contains("code at rip: dd ") || guest.errors.contains("code at rip: db "))
        }

        @Test("the time limit is 124", arguments: ["sleep", "spin"])
        func timeLimit(action: String) throws {
            let guest = try VMMProcess("hello", "do=\(action)", processors: 2, options: ["--timeout", "0.5"])
            #expect(try guest.wait() == 124)
            #expect(guest.errors.contains("time limit of 0.5 s"))
        }

        @Test("signals end a payload at once", arguments: [SIGTERM, SIGHUP, SIGINT, SIGQUIT])
        func signal(number: Int32) throws {
            // Waiting for the grace period would run into the test's own limit.
            let guest = try VMMProcess(
                "hello", number == SIGHUP ? "do=spin" : "do=sleep", processors: 2,
                options: ["--grace", "1000"])
            try guest.waitForOutput("vcpu 1 of 2")
            guest.child.kill(number)
            #expect(try guest.wait() == 128 + number)
            #expect(guest.errors.contains("after signal \(number)"))
        }

        @Test("a payload's bad arguments are its own status 2")
        func payloadArguments() throws {
            let guest = try VMMProcess("hello", "frobnicate=1")
            #expect(try guest.wait() == 2)
            #expect(guest.output.contains("frobnicate"))
        }
    }

    @Suite("What the VMM refuses")
    struct RefusalTests {
        @Test(
            "bad arguments are 64",
            arguments: [
                ["--frobnicate", "1"], ["--memory", "lots"], ["--memory"], ["--cpus", "two"], ["word"],
                ["--serial", "tape"],
                ["--boot", "magic"], ["--timeout", "never"], ["--name", "../up"], ["--log-level", "loud"],
            ])
        func usage(words: [String]) throws {
            let guest = try VMMProcess("hello", options: words)
            #expect(try guest.wait() == 64)
            #expect(guest.errors.contains("mingle: error:"))
            #expect(guest.errors.contains("usage: mingle-vmm"))
            #expect(guest.output.isEmpty)
        }

        @Test(
            "a kernel that cannot be loaded is 125",
            arguments: [
                "missing", "folder", "fifo", "empty", "text", "truncated",
            ])
        func kernel(kind: String) throws {
            let folder = try TemporaryDirectory()
            var kernel = folder.path(kind)
            switch kind {
            case "folder": kernel = folder.path
            case "fifo": #expect(mkfifo(kernel, 0o600) == 0)
            case "empty": kernel = try folder.write(kind, [])
            case "text": kernel = try folder.write(kind, [UInt8](repeating: 0x41, count: 10_000))
            case "truncated":
                kernel = try folder.write(kind, Array(TinyPayload.file(TinyPayload.exit(0)).prefix(5000)))
            default: break
            }
            let guest = try VMMProcess(kernel: kernel, folder: folder)
            #expect(try guest.wait() == 125)
            expectOneLine(guest.errors, naming: kernel)
        }

        @Test("a KVM that is none is 125", arguments: ["/dev/null", "/nonexistent", "/tmp"])
        func device(path: String) throws {
            let guest = try VMMProcess("hello", options: ["--kvm", path])
            #expect(try guest.wait() == 125)
            expectOneLine(guest.errors, naming: path == "/dev/null" ? path : "/dev/kvm")
        }

        @Test(
            "sizes that cannot be are 125",
            arguments: [
                ["--memory", "0"], ["--memory", "2097153"], ["--memory", "2097152"], ["--cpus", "0"],
                ["--cpus", "33"],
                ["--memory", "1152921504606846976"],
            ])
        func sizes(words: [String]) throws {
            let guest = try VMMProcess("hello", options: words)
            #expect(try guest.wait() == 125)
            expectOneLine(guest.errors, naming: "")
        }

        @Test("a name that is taken is 125, and the first guest keeps it")
        func name() throws {
            let folder = try TemporaryDirectory()
            let options = ["--state-dir", try folder.stateDirectory()]
            let first = try VMMProcess("hello", "do=sleep", options: options, folder: folder, name: "twin")
            try first.waitForOutput("vcpu 0")
            let second = try VMMProcess("hello", options: options, name: "twin")
            #expect(try second.wait() == 125)
            expectOneLine(second.errors, naming: "twin")
            #expect(first.child.finish() == nil)
            #expect(folder.text("state/guests/twin").contains("pid=\(first.child.identifier)\n"))
            first.child.kill(SIGTERM)
            #expect(try first.wait() == 143)
            #expect(try VMMProcess("hello", options: options, name: "twin").wait() == 0)
        }

        private func expectOneLine(_ errors: String, naming name: String) {
            #expect(errors.hasPrefix("mingle: error: ") && errors.hasSuffix("\n"))
            #expect(errors.filter(\.isNewline).count == 1, "\(errors)")
            #expect(name.isEmpty || errors.contains(name), "\(errors)")
        }
    }
}
