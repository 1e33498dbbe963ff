import Foundation
import LinuxHost
import Testing
import TestSupport

extension LinuxGuests {
    @Suite("The serial line")
    struct SerialTests {
        /// In the lab, where each byte takes up to a millisecond, it is a third; still more than the guest's terminal holds.
        @Test("100 KB of all byte values go through cat unchanged")
        func bytes() throws {
            let folder = try TemporaryDirectory()
            var generator = SystemRandomNumberGenerator()
            let rounds = ProcessInfo.processInfo.environment["MINGLE_LAB"] == nil ? 400 : 128
            let values = (0..<rounds).flatMap { _ in
                (0...255).map { UInt8($0) }.shuffled(using: &generator)
            }
            let path = try folder.write("input", values)
            let guest = try Mingle(
                ["run", "--timeout", Mingle.leash, "--cmdline", "loglevel=1", "--", "cat"],
                input: .file(path, O_RDONLY))
            #expect(try guest.wait().status == 0)
            #expect(guest.folder.bytes("output") == values)
            // Before the command runs, the line carries messages of the kernel and of init.
            #expect(guest.errors.contains("mingle: init after "), "\(guest.errors)")
        }

        @Test("What is piped in is a script; its status is that of mingle")
        func commands() throws {
            let folder = try TemporaryDirectory()
            let path = try folder.write("input", Array("echo sum $((40 + 2))\nexit 3\necho never\n".utf8))
            let guest = try Mingle(["run", "--timeout", Mingle.leash], input: .file(path, O_RDONLY))
            let result = try guest.wait()
            #expect(result.status == 3)
            #expect(result.output == "sum 42\n" && result.errors.contains("mingle: init after "))
        }

        @Test("A terminal: a shell answers, Ctrl-A X ends the guest, the terminal is restored")
        func terminal() throws {
            let terminal = try PseudoTerminal()
            let folder = try TemporaryDirectory()
            chmod(folder.path, 0o700)
            let before = terminal.settings
            let child = try ChildProcess(
                Mingle.programs + "/mingle", ["run", "--timeout", Mingle.leash],
                environment: ["XDG_RUNTIME_DIR": folder.path, "TERM": "vt100"],
                streams: Array(repeating: .file(terminal.path, O_RDWR), count: 3), ownSession: true)
            try terminal.wait(for: "# ")
            terminal.type("echo answer $((6 * 7))\r")
            try terminal.wait(for: "answer 42")
            terminal.type("tty; stty -a | head -n 1\r")
            try terminal.wait(for: "/dev/ttyS0")
            // Ctrl-C goes to the guest, not to mingle.
            terminal.type("sh -c 'echo be\"\"gun; exec sleep 1000'\r")
            try terminal.wait(for: "begun")
            terminal.type("\u{3}")
            terminal.type("echo still $((1 + 1))\r")
            try terminal.wait(for: "still 2")
            terminal.type("\u{1}x")
            #expect(try child.wait(within: Mingle.patience) == 130)
            #expect(terminal.settings == before)
        }
    }
}
