import Foundation
import LinuxHost
import GuestMemory
import Testing
import TestSupport

extension HostKVM {
    @Suite("The console of the VMM")
    struct ConsoleTests {
        @Test("the serial line goes to a file")
        func serialFile() throws {
            let folder = try TemporaryDirectory()
            let path = folder.path("serial")
            let guest = try VMMProcess("hello", options: ["--serial", "file:\(path)"], folder: folder)
            #expect(try guest.wait() == 0)
            #expect(guest.output.isEmpty)
            #expect(folder.text("serial") == "hello: vcpu 0 of 1, guest 0\n")
        }

        @Test("nobody listens: the guest goes on")
        func serialNone() throws {
            let folder = try TemporaryDirectory()
            let data = [UInt8](repeating: 0x41, count: TinyPayload.floodCount)
            let kernel = try folder.write("tiny.elf", TinyPayload.file(TinyPayload.flood, data: data))
            let guest = try VMMProcess(kernel: kernel, options: ["--serial", "none"], folder: folder)
            #expect(try guest.wait() == 0)
            #expect(guest.output.isEmpty)
        }

        @Test("lines typed are answered, until the end")
        func echo() throws {
            let folder = try TemporaryDirectory()
            let input = try folder.write("input", Array("one\ntwo words\nexit\n".utf8))
            let guest = try VMMProcess(
                "hello", "do=echo code=3", folder: folder, input: .file(input, O_RDONLY))
            #expect(try guest.wait() == 3)
            #expect(guest.output.hasSuffix("hello: echo one\nhello: echo two words\n"))
        }

        @Test("input through a pipe; its end leaves the guest running")
        func endOfInput() throws {
            let folder = try TemporaryDirectory()
            let pipe = try SmallPipe(folder)
            let guest = try VMMProcess("hello", "do=echo", folder: folder, input: .descriptor(pipe.reader))
            pipe.closeReader()
            pipe.write("first\n")
            try guest.waitForOutput("hello: echo first\n")
            pipe.write("second\n")
            pipe.closeWriter()
            try guest.waitForOutput("hello: echo second\n")
            usleep(200_000)
            #expect(guest.child.finish() == nil)
            guest.child.kill(SIGTERM)
            #expect(try guest.wait() == 143)
        }

        @Test("100 KB of input, more than the line holds, arrive whole")
        func longInput() throws {
            let folder = try TemporaryDirectory()
            var generator = SeededGenerator(for: "long input")
            let bytes = (0..<TinyPayload.inputCount).map { _ in UInt8.random(in: 1...255, using: &generator) }
            let kernel = try folder.write("tiny.elf", TinyPayload.file(TinyPayload.sumInput))
            let input = try folder.write("input", bytes)
            let guest = try VMMProcess(kernel: kernel, folder: folder, input: .file(input, O_RDONLY))
            #expect(try guest.wait() == 0)
            let sum = bytes.reduce(UInt64(0)) { $0 &* 31 &+ UInt64($1) }
            #expect(folder.bytes("output") == (0..<8).map { UInt8(truncatingIfNeeded: sum >> ($0 * 8)) })
        }

        @Test("a flood that nobody reads for a while loses nothing")
        func flood() throws {
            let folder = try TemporaryDirectory()
            var generator = SeededGenerator(for: "flood")
            let data = (0..<TinyPayload.floodCount).map { _ in UInt8.random(in: 0...255, using: &generator) }
            let kernel = try folder.write("tiny.elf", TinyPayload.file(TinyPayload.flood, data: data))
            let pipe = try SmallPipe(folder)
            let guest = try VMMProcess(kernel: kernel, folder: folder, output: .descriptor(pipe.writer))
            pipe.closeWriter()
            // More than the line, the VMM and the pipe hold together: the guest cannot end before we read.
            #expect(TinyPayload.floodCount > 65536 + 4096 + SmallPipe.capacity)
            usleep(1_000_000)
            #expect(guest.child.finish() == nil)
            let read = pipe.readAll()
            #expect(read.count == data.count && read == data)
            #expect(try guest.wait() == 0)
        }

        /// Until a command begins, and in this guest none does, everything goes to standard error.
        @Test("standard error that nobody reads holds nobody up")
        func stuckErrors() throws {
            let folder = try TemporaryDirectory()
            let data = [UInt8](repeating: 0x61, count: TinyPayload.floodCount)
            let kernel = try folder.write("tiny.elf", TinyPayload.file(TinyPayload.flood, data: data))
            let pipe = try SmallPipe(folder)
            let guest = try VMMProcess(
                kernel: kernel, options: ["--eof-to-guest"], folder: folder, errors: .descriptor(pipe.writer))
            // More than the line and the pipe hold.
            #expect(TinyPayload.floodCount > 65536 + SmallPipe.capacity)
            #expect(try guest.wait(within: 60) == 0)
            #expect(folder.bytes("output").isEmpty)
            pipe.closeWriter()
            let read = pipe.readAll()
            #expect(!read.isEmpty && read.allSatisfy { $0 == 0x61 })
        }

        @Test("a reader that goes away ends the guest, with its reason")
        func brokenPipe() throws {
            let folder = try TemporaryDirectory()
            let (input, output) = (try SmallPipe(folder), try SmallPipe(folder))
            let guest = try VMMProcess(
                "hello", "do=echo", folder: folder, input: .descriptor(input.reader),
                output: .descriptor(output.writer))
            output.closeWriter()
            output.closeReader()
            input.write("anybody?\n")
            #expect(try guest.wait() == 119)
            #expect(guest.errors.contains("nobody reads standard output any more"), "\(guest.errors)")
        }

        @Test("what a guest says last is there, even if it says much")
        func lastWords() throws {
            let folder = try TemporaryDirectory()
            let data = [UInt8](repeating: 0x42, count: 50_000)
            // rep outsb of 50 000 bytes, and out at once
            let code: [UInt8] =
                [
                    0xBE, 0x00, 0x10, 0x20, 0x00, 0xB9, 0x50, 0xC3, 0x00, 0x00, 0x66, 0xBA, 0xF8, 0x03, 0xF3,
                    0x6E,
                ]
                + TinyPayload.exit(9)
            let kernel = try folder.write("tiny.elf", TinyPayload.file(code, data: data))
            let guest = try VMMProcess(kernel: kernel, folder: folder)
            #expect(try guest.wait() == 9)
            #expect(folder.bytes("output") == data)
        }

        @Test("Ctrl-A X at a terminal is 130 and restores its settings")
        func quitAtTerminal() throws {
            let terminal = try PseudoTerminal()
            let before = terminal.settings
            let folder = try TemporaryDirectory()
            let state = try folder.stateDirectory()
            let guest = try VMMProcess(
                "hello", "do=echo", options: ["--state-dir", state], folder: folder,
                input: .file(terminal.path, O_RDWR), output: .file(terminal.path, O_RDWR), ownSession: true)
            try terminal.wait(for: "hello: vcpu 0 of 1, guest 0")
            #expect(terminal.settings != before)
            #expect(terminal.settings.isRaw)
            #expect(try folder.namesOfState("terminal").count == 1)
            // An escaped Ctrl-A is the guest's.
            terminal.type([0x01, 0x01] + Array("key\n".utf8))
            try terminal.wait(for: "hello: echo ?key")
            terminal.type([0x01, UInt8(ascii: "x")])
            #expect(try guest.wait() == 130)
            #expect(terminal.settings == before)
            // Its file says nothing any more.
            let name = try #require(try folder.namesOfState("terminal").first)
            #expect(folder.text("state/terminal/\(name)") == "" && !isLocked("\(state)/terminal/\(name)"))
            #expect(guest.errors.contains("Ctrl-A X"))
        }

        @Test("kill -9 leaves the record of the terminal, unlocked, with the settings to restore")
        func killedAtTerminal() throws {
            let terminal = try PseudoTerminal()
            let folder = try TemporaryDirectory()
            let state = try folder.stateDirectory()
            let guest = try VMMProcess(
                "hello", "do=sleep", options: ["--state-dir", state], folder: folder,
                input: .file(terminal.path, O_RDWR), output: .file(terminal.path, O_RDWR), ownSession: true)
            try terminal.wait(for: "hello: vcpu 0")
            let name = try #require(try folder.namesOfState("terminal").first)
            #expect(isLocked("\(state)/terminal/\(name)"))
            #expect(isLocked("\(state)/guests/guest"))
            guest.child.kill(SIGKILL)
            #expect(try guest.wait() == -SIGKILL)
            #expect(!isLocked("\(state)/terminal/\(name)"))
            #expect(!isLocked("\(state)/guests/guest"))
            let text = folder.text("state/terminal/\(name)")
            #expect(text.contains("tty=\(terminal.path)\n"))
            #expect(text.contains("owner_pid=\(guest.child.identifier)\n"))
            #expect(text.contains("termios="))
            // Who comes next under that name takes the record over.
            #expect(try VMMProcess("hello", options: ["--state-dir", state]).wait() == 0)
            #expect(!isLocked("\(state)/guests/guest"))
        }
    }
}

func isLocked(_ path: String) -> Bool {
    let descriptor = open(path, O_RDWR | O_CLOEXEC)
    defer { close(descriptor) }
    return descriptor >= 0 && flock(descriptor, LOCK_EX | LOCK_NB) != 0 && errno == EWOULDBLOCK
}

extension TemporaryDirectory {
    /// What is in a folder of the state directory.
    func namesOfState(_ name: String) throws -> [String] {
        try FileManager.default.contentsOfDirectory(atPath: path("state/\(name)"))
    }
}
