import Foundation
import LinuxHost
import MingleSupport
import Testing
import TestSupport

extension SmallPipe {
    /// Leaves no room for a single byte.
    func fill() {
        let flags = fcntl(writer, F_GETFL)
        _ = fcntl(writer, F_SETFL, flags | O_NONBLOCK)
        let bytes = [UInt8](repeating: UInt8(ascii: "."), count: Self.capacity)
        while Glibc.write(writer, bytes, bytes.count) > 0 {}
        _ = fcntl(writer, F_SETFL, flags)
    }
}

extension HostKVM {
    @Suite("Output that cannot be written")
    struct OutputTests {
        static let hello = "hello: vcpu 0 of 1, guest 0\n"
        static let lost = "28 bytes of the guest's output are lost"

        /// A guest that has ended, and whose last words nobody has taken.
        private static func waiting(_ arguments: String, _ folder: TemporaryDirectory) throws -> (
            SmallPipe, VMMProcess, ControlClient
        ) {
            let pipe = try SmallPipe(folder)
            pipe.fill()
            let socket = folder.path("control")
            let guest = try VMMProcess(
                "hello", arguments, options: ["--control", socket], folder: folder,
                output: .descriptor(pipe.writer))
            pipe.closeWriter()
            var client: ControlClient?
            _ = eventually {
                client = try? ControlClient(guest: "guest", path: socket)
                return client != nil
            }
            let control = try #require(client)
            // Its memory is given back, which happens only while it waits.
            #expect(try eventually { try control.ask("stats").contains("\"home_bytes\": 0,") })
            #expect(try control.ask("stats").contains("\"state\": \"ended\""))
            return (pipe, guest, control)
        }

        @Test("a slow reader gets everything, and the guest's own status counts", arguments: [0, 7])
        func slowReader(code: Int) throws {
            let folder = try TemporaryDirectory()
            let (pipe, guest, _) = try Self.waiting("do=exit code=\(code)", folder)
            // Longer than any patience that the VMM might have.
            sleep(4)
            #expect(guest.child.finish() == nil)
            let read = String(decoding: pipe.readAll(), as: UTF8.self)
            #expect(read.hasSuffix("." + Self.hello))
            #expect(try guest.wait() == code)
            #expect(guest.errors.isEmpty)
        }

        @Test("a signal ends the waiting, and it is said what is lost")
        func signal() throws {
            let folder = try TemporaryDirectory()
            let (_, guest, _) = try Self.waiting("do=exit code=7", folder)
            guest.child.kill(SIGTERM)
            #expect(try guest.wait() == 128 + SIGTERM)
            #expect(guest.errors.contains(Self.lost) && guest.errors.contains("signal 15"), "\(guest.errors)")
        }

        @Test("a reader that goes ends the waiting, and it is said what is lost")
        func reader() throws {
            let folder = try TemporaryDirectory()
            let (pipe, guest, _) = try Self.waiting("do=exit code=7", folder)
            pipe.closeReader()
            #expect(try guest.wait() == 119)
            #expect(guest.errors.contains(Self.lost + ": nobody reads"), "\(guest.errors)")
        }

        @Test("a terminal that shows nothing: signals are heard, and it is said what is lost")
        func stalledTerminal() throws {
            let terminal = try PseudoTerminal()
            terminal.holdOutput()
            let folder = try TemporaryDirectory()
            let socket = folder.path("control")
            let guest = try VMMProcess(
                "hello", "do=exit code=7", options: ["--control", socket], folder: folder,
                output: .file(terminal.path, O_WRONLY))
            #expect(
                eventually {
                    let client = try? ControlClient(guest: "guest", path: socket)
                    return (try? client?.ask("stats"))?.contains("\"state\": \"ended\"") == true
                })
            guest.child.kill(SIGTERM)
            #expect(try guest.wait() == 128 + SIGTERM)
            #expect(guest.errors.contains(Self.lost), "\(guest.errors)")
        }

        @Test("a full disk as standard output: its reason, and 119", arguments: ["do=exit", "do=sleep"])
        func fullOutput(arguments: String) throws {
            let guest = try VMMProcess("hello", arguments, output: .file("/dev/full", O_WRONLY))
            #expect(try guest.wait() == 119)
            #expect(
                guest.errors.contains(
                    " bytes of the guest's output are lost: standard output cannot be written (No space left on device)"
                ),
                "\(guest.errors)")
            #expect(!guest.errors.contains("signal"))
        }

        @Test("a full disk under a log: said once, and the guest goes on")
        func fullLog() throws {
            let guest = try VMMProcess("hello", "do=exit code=5", options: ["--serial", "file:/dev/full"])
            #expect(try guest.wait() == 5)
            let lines = guest.errors.split(separator: "\n")
            #expect(lines.count == 2, "\(guest.errors)")
            #expect(guest.errors.contains("/dev/full cannot be written (No space left on device)"))
            #expect(guest.errors.contains("28 bytes of its output are missing in /dev/full"))
        }

        @Test(
            "a log goes on when there is room again, and says what is missing",
            .enabled(if: SmallDisk.canMount, "only root can mount a small file system"))
        func logGoesOn() throws {
            let folder = try TemporaryDirectory()
            let disk = try SmallDisk(folder)
            try disk.fill()
            let socket = folder.path("control")
            let guest = try VMMProcess(
                "hello", "do=echo",
                options: ["--serial", "file:\(disk.path)/log", "--control", socket], folder: folder)
            #expect(eventually { guest.errors.contains("No space left on device") })
            let control = try ControlClient(guest: "guest", path: socket)
            try control.ask("type first")
            usleep(300_000)
            disk.free()
            var count = 0
            func log() -> String { (try? String(contentsOfFile: disk.path + "/log", encoding: .utf8)) ?? "" }
            #expect(
                try eventually {
                    count += 1
                    try control.ask("type again \(count)")
                    usleep(50_000)
                    return log().contains("hello: echo again")
                })
            let text = log()
            #expect(
                text.hasPrefix("\n[mingle: ") && text.contains(" bytes are missing here: No space left"),
                "\(text)")
            #expect(!text.contains("echo first"))
            // Whole lines only.
            var lines = text.split(separator: "\n").dropFirst()
            // The last one may still be on its way.
            if !text.hasSuffix("\n") { lines = lines.dropLast() }
            #expect(lines.allSatisfy { $0.hasPrefix("hello: echo again ") }, "\(text)")
            guest.child.kill(SIGTERM)
            #expect(try guest.wait() == 143)
            #expect(guest.errors.components(separatedBy: "No space left").count == 2, "\(guest.errors)")
            #expect(guest.errors.contains("bytes of its output are missing in \(disk.path)/log"))
        }

        @Test("a report that cannot be written is 119")
        func report() throws {
            let device = try VMMProcess("hello", options: ["--report", "/dev/full"])
            #expect(try device.wait() == 119)
            #expect(
                device.errors.contains("no report: /dev/full: cannot be written: No space left on device"))
        }

        @Test(
            "a report has its room before the first byte of the old one changes",
            .enabled(if: SmallDisk.canMount, "only root can mount a small file system"))
        func reportOnAFullDisk() throws {
            let folder = try TemporaryDirectory()
            let disk = try SmallDisk(folder)
            // A page of the disk holds the old one, and the report fits into it; another file has no page, and gets none.
            let (path, other) = (disk.path + "/report", disk.path + "/other")
            try ("old" + String(repeating: " ", count: 3000)).write(
                toFile: path, atomically: false, encoding: .utf8)
            #expect(truncate(path, 3) == 0)
            #expect(FileManager.default.createFile(atPath: other, contents: nil) && truncate(other, 5) == 0)
            try disk.fill()
            let refused = try VMMProcess("hello", "code=3", options: ["--report", other])
            #expect(try refused.wait() == 119)
            #expect(
                refused.errors.contains("\(other): cannot be written: No space left on device"),
                "\(refused.errors)")
            // Still the five zeros that it was.
            #expect(FileManager.default.contents(atPath: other) == Data(count: 5))
            let guest = try VMMProcess("hello", "code=3", options: ["--report", path])
            #expect(try guest.wait() == 3, "\(guest.errors)")
            let text = try String(contentsOfFile: path, encoding: .utf8)
            #expect(text.hasPrefix("{") && text.hasSuffix("}\n") && text.utf8.count < 3000)
            #expect(
                try FileManager.default.contentsOfDirectory(atPath: disk.path).sorted() == [
                    "ballast", "other", "report",
                ])
        }

        @Test("a trace that cannot be written is said, and 119")
        func trace() throws {
            let folder = try TemporaryDirectory()
            let guest = try VMMProcess(
                "fill", "zero=0.9",
                options: [
                    "--sharing", "builtin", "--window", "pause", "--trace-share", "/dev/full",
                    "--share-cpu", "100",
                ], folder: folder)
            #expect(
                eventually {
                    guest.errors.contains(
                        "the trace ends early: /dev/full cannot be written (No space left on device)")
                })
            guest.child.kill(SIGTERM)
            #expect(try guest.wait() == 143)
            #expect(guest.errors.components(separatedBy: "ends early").count == 3, "\(guest.errors)")
        }
    }

    @Suite("Files for output")
    struct OutputFileTests {
        private static let options = [
            ["--serial", "file:"], ["--report", ""], ["--sharing", "builtin", "--trace-share", ""],
        ]
        private static func words(_ option: [String], _ path: String) -> [String] {
            option.dropLast() + [(option.last ?? "") + path]
        }

        @Test("the kernel is not overwritten, whatever it is called", arguments: options)
        func kernel(option: [String]) throws {
            let folder = try TemporaryDirectory()
            let bytes = TinyPayload.file(TinyPayload.exit(0))
            let kernel = try folder.write("kernel", bytes)
            #expect(link(kernel, folder.path("hard")) == 0)
            #expect(symlink(kernel, folder.path("soft")) == 0)
            for name in ["kernel", "hard", "soft"] {
                let guest = try VMMProcess(
                    kernel: kernel, options: Self.words(option, folder.path(name)), folder: folder)
                #expect(try guest.wait() == 125)
                #expect(guest.errors.contains("\(folder.path(name)): is the kernel, too"), "\(guest.errors)")
                #expect(folder.bytes("kernel") == bytes)
            }
        }

        @Test("two outputs are not one file")
        func twice() throws {
            let folder = try TemporaryDirectory()
            let path = folder.path("both")
            let guest = try VMMProcess(
                "hello", options: ["--serial", "file:\(path)", "--report", folder.path + "/./both"],
                folder: folder)
            #expect(try guest.wait() == 125)
            #expect(guest.errors.contains("is the file of --serial, too"), "\(guest.errors)")
            #expect(!FileManager.default.fileExists(atPath: path))
            // Standard output, as a shell redirects it.
            let other = try VMMProcess("hello", options: ["--report", folder.path("output")], folder: folder)
            #expect(try other.wait() == 125)
            #expect(other.errors.contains("is standard output, too"))
        }

        @Test("a FIFO without a reader, a folder, a socket are refused at once", arguments: options)
        func refused(option: [String]) throws {
            let folder = try TemporaryDirectory()
            #expect(mkfifo(folder.path("fifo"), 0o600) == 0)
            let fifo = try VMMProcess("hello", options: Self.words(option, folder.path("fifo")))
            #expect(try fifo.wait() == 125)
            #expect(fifo.errors.contains("\(folder.path("fifo")): nobody reads it"), "\(fifo.errors)")
            let directory = try VMMProcess("hello", options: Self.words(option, folder.path))
            #expect(try directory.wait() == 125)
            #expect(directory.errors.contains("a directory: name a file"))
            if let disk = try? FileManager.default.contentsOfDirectory(atPath: "/dev").first(where: {
                ((try? FileManager.default.attributesOfItem(atPath: "/dev/\($0)"))?[.type]
                    as? FileAttributeType)
                    == .typeBlockSpecial
            }) {
                let block = try VMMProcess("hello", options: Self.words(option, "/dev/\(disk)"))
                #expect(try block.wait() == 125)
                #expect(block.errors.contains("a block device"))
            }
        }

        @Test("a FIFO with a reader works", arguments: ["--serial", "--report"])
        func fifo(option: String) throws {
            let folder = try TemporaryDirectory()
            let path = folder.path("fifo")
            #expect(mkfifo(path, 0o600) == 0)
            let reader = open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC)
            defer { close(reader) }
            let guest = try VMMProcess(
                "hello", "code=6", options: [option, (option == "--serial" ? "file:" : "") + path],
                folder: folder)
            #expect(try guest.wait() == 6)
            var buffer = [UInt8](repeating: 0, count: 65536)
            let count = read(reader, &buffer, buffer.count)
            let text = String(decoding: buffer.prefix(max(0, count)), as: UTF8.self)
            #expect(
                option == "--serial" ? text == OutputTests.hello : text.contains("\"status\": 6"), "\(text)")
        }

        @Test("a file is no control socket's place")
        func control() throws {
            let folder = try TemporaryDirectory()
            let path = try folder.write("precious", [1, 2, 3])
            let guest = try VMMProcess("hello", options: ["--control", path], folder: folder)
            #expect(try guest.wait() == 125)
            #expect(folder.bytes("precious") == [1, 2, 3])
        }
    }
}

/// A file system of 32 KiB.
final class SmallDisk {
    static var canMount: Bool { getuid() == 0 }
    let path: String

    init(_ folder: TemporaryDirectory) throws {
        path = folder.path("disk")
        try FileManager.default.createDirectory(atPath: path, withIntermediateDirectories: false)
        guard mount("tmpfs", path, "tmpfs", 0, "size=32k") == 0 else {
            throw Failure("mount: errno \(errno)")
        }
    }

    func fill() throws {
        let file = open(path + "/ballast", O_WRONLY | O_CREAT | O_CLOEXEC, 0o600)
        defer { close(file) }
        let bytes = [UInt8](repeating: 0, count: 4096)
        while write(file, bytes, bytes.count) > 0 {}
    }

    func free() { unlink(path + "/ballast") }

    // MNT_DETACH
    deinit { umount2(path, 2) }
}
