import Foundation
import LinuxHost
import Testing
import TestSupport

@Suite("Files for output")
struct OutputFileTests {
    private let folder: TemporaryDirectory
    init() throws { folder = try TemporaryDirectory() }

    private func names() throws -> [String] {
        try FileManager.default.contentsOfDirectory(atPath: folder.path).sorted()
    }

    @Test("a result takes the old one's place, with its mode; nothing is left beside it")
    func replaces() throws {
        let path = try folder.write("result", Array("old and long".utf8))
        #expect(chmod(path, 0o640) == 0)
        try ResultFile(path).write(Array("new".utf8))
        try ResultFile(folder.path("fresh")).write(Array("first".utf8))
        #expect(folder.text("result") == "new" && folder.text("fresh") == "first")
        var status = stat()
        #expect(stat(path, &status) == 0 && status.st_mode & 0o777 == 0o640)
        #expect(try names() == ["fresh", "result"])
    }

    @Test("a result that was opened before is written in place, as long as it is")
    func held() throws {
        let path = try folder.write("result", Array("old and long".utf8))
        let file = try HeldResultFile(path)
        #expect(folder.text("result") == "old and long")
        // Whatever happens to its name, it is this file.
        #expect(rename(path, folder.path("elsewhere")) == 0)
        try file.write(Array("new".utf8))
        #expect(folder.text("elsewhere") == "new")
        #expect(try names() == ["elsewhere"])
        let fresh = try HeldResultFile(folder.path("fresh"))
        fresh.forget()
        #expect(try names() == ["elsewhere"])
        #expect(throws: OutputFileError.self) { try HeldResultFile("/dev/full").write([1]) }
        #expect(throws: OutputFileError.self) { _ = try HeldResultFile(folder.path) }
    }

    @Test("a symbolic link stays one")
    func links() throws {
        let target = try folder.write("target", Array("old and long".utf8))
        #expect(symlink(target, folder.path("link")) == 0)
        try ResultFile(folder.path("link")).write(Array("new".utf8))
        #expect(folder.text("target") == "new")
        #expect(try FileManager.default.destinationOfSymbolicLink(atPath: folder.path("link")) == target)
    }

    @Test("devices are written to; a full one is an error")
    func devices() throws {
        try ResultFile("/dev/null").write([1, 2, 3])
        let error = #expect(throws: OutputFileError.self) { try ResultFile("/dev/full").write([1]) }
        #expect(error?.description == "/dev/full: cannot be written: No space left on device")
    }

    @Test("a FIFO that nobody reads, a directory and a socket's place are refused, and nothing waits")
    func refusals() throws {
        #expect(mkfifo(folder.path("fifo"), 0o600) == 0)
        for name in ["fifo", ".", "missing/file"] {
            #expect(throws: OutputFileError.self, "\(name)") { _ = try OutputFile.open(folder.path(name)) }
        }
        #expect(throws: OutputFileError.self) { _ = try ResultFile(folder.path("fifo")) }
        #expect(throws: OutputFileError.self) { _ = try ResultFile(folder.path) }
        #expect(try names() == ["fifo"])
    }

    @Test("opening changes nothing; what was made can be taken back")
    func opening() throws {
        let path = try folder.write("log", [1, 2, 3])
        let file = try OutputFile.open(path)
        file.forget()
        #expect(folder.bytes("log") == [1, 2, 3])
        try file.clear()
        #expect(file.write([4, 5][...]) == .bytes(2))
        #expect(folder.bytes("log") == [4, 5])
        let made = try OutputFile.open(folder.path("new"))
        #expect(try names() == ["log", "new"])
        made.forget()
        #expect(try names() == ["log"])
    }

    @Test("one file is known by all its names")
    func identities() throws {
        let path = try folder.write("one", [1])
        #expect(link(path, folder.path("hard")) == 0)
        #expect(FileIdentity.of(path: path) == FileIdentity.of(path: folder.path("hard")))
        #expect(FileIdentity.of(path: path) != nil)
        #expect(FileIdentity.of(path: "/dev/null") == nil && FileIdentity.of(path: folder.path) == nil)
    }
}
