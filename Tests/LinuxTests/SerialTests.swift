import Foundation
import Testing

extension LinuxGuests {
    @Suite("The serial line")
    struct SerialTests {
        @Test("100 KB of all byte values go through cat unchanged")
        func bytes() throws {
            let folder = try TemporaryFolder()
            var generator = SystemRandomNumberGenerator()
            let values = (0..<400).flatMap { _ in (0...255).map { UInt8($0) }.shuffled(using: &generator) }
            #expect(values.count >= 100_000)
            let path = try folder.write(values, "input")
            let guest = try Mingle(
                ["run", "--timeout", "150", "--cmdline", "loglevel=1", "--", "cat"],
                input: .file(path, O_RDONLY))
            #expect(try guest.wait(within: 160).status == 0)
            // Before the command runs, the line carries messages of the kernel and of init.
            let output = guest.folder.bytes("output")
            #expect(output.count >= values.count)
            #expect(Array(output.suffix(values.count)) == values)
            let rest = String(decoding: output.dropLast(values.count), as: UTF8.self)
            #expect(rest.hasSuffix(" s\r\n") && rest.contains("mingle: init after "), "\(rest)")
        }

        @Test("What is piped in is a script; its status is that of mingle")
        func commands() throws {
            let folder = try TemporaryFolder()
            let path = try folder.write(Array("echo sum $((40 + 2))\nexit 3\necho never\n".utf8), "input")
            let guest = try Mingle(["run", "--timeout", "150"], input: .file(path, O_RDONLY))
            let result = try guest.wait(within: 160)
            #expect(result.status == 3)
            #expect(result.lines == ["sum 42"])
        }

        @Test("A terminal: a shell answers, Ctrl-A X ends the guest, the terminal is restored")
        func terminal() throws {
            let terminal = try Terminal()
            let folder = try TemporaryFolder()
            chmod(folder.path, 0o700)
            let before = terminal.settings
            let child = try Child(
                Mingle.programs + "/mingle", ["run", "--timeout", "150"],
                environment: ["XDG_RUNTIME_DIR": folder.path, "TERM": "vt100"],
                streams: Array(repeating: .file(terminal.path, O_RDWR), count: 3), ownSession: true)
            try terminal.wait(for: "# ")
            terminal.type("echo answer $((6 * 7))\r")
            try terminal.wait(for: "answer 42")
            terminal.type("tty; stty -a | head -n 1\r")
            try terminal.wait(for: "/dev/ttyS0")
            // Ctrl-C goes to the guest, not to mingle.
            terminal.type("sleep 1000\r")
            try terminal.wait(for: "sleep 1000")
            usleep(300_000)
            terminal.type("\u{3}")
            terminal.type("echo still $((1 + 1))\r")
            try terminal.wait(for: "still 2")
            terminal.type("\u{1}x")
            #expect(try child.wait(within: 60) == 130)
            #expect(terminal.settings == before)
        }
    }
}

/// A pseudo terminal: the test is the person in front of it.
final class Terminal {
    /// What the program opens.
    let path: String
    private let master: Int32
    private let slave: Int32
    private var shown = ""

    init() throws {
        master = open("/dev/ptmx", O_RDWR | O_NOCTTY | O_CLOEXEC)
        var locked: Int32 = 0
        var number: UInt32 = 0
        // TIOCSPTLCK and TIOCGPTN (asm-generic/ioctls.h)
        guard master >= 0, ioctl(master, 0x4004_5431, &locked) == 0, ioctl(master, 0x8004_5430, &number) == 0
        else {
            throw Failure("no pseudo terminal")
        }
        path = "/dev/pts/\(number)"
        // Held open, or its settings would go with the program.
        slave = open(path, O_RDWR | O_NOCTTY | O_CLOEXEC)
        _ = fcntl(master, F_SETFL, O_NONBLOCK)
    }

    deinit {
        close(slave)
        close(master)
    }

    /// Mode bits and control characters.
    var settings: [UInt32] {
        var value = termios()
        tcgetattr(slave, &value)
        let characters = withUnsafeBytes(of: value.c_cc) { $0.map { UInt32($0) } }
        return [value.c_iflag, value.c_oflag, value.c_cflag, value.c_lflag] + characters
    }

    func type(_ text: String) {
        _ = Array(text.utf8).withUnsafeBytes { write(master, $0.baseAddress, $0.count) }
    }

    /// Waits until the screen shows this, behind what was waited for before.
    func wait(for text: String, within seconds: Double = 120) throws {
        var buffer = [UInt8](repeating: 0, count: 4096)
        let found = eventually(within: seconds) {
            while case let count = read(master, &buffer, buffer.count), count > 0 {
                shown += String(decoding: buffer[..<count], as: UTF8.self)
            }
            return shown.contains(text)
        }
        guard found, let range = shown.range(of: text) else {
            throw Failure("no '\(text)' on the terminal, but: \(shown)")
        }
        shown = String(shown[range.upperBound...])
    }
}
