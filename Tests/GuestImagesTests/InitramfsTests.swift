import Testing

@testable import GuestImages

@Suite struct InitramfsTests {
    private func entries(_ overlay: [UInt8]) throws -> [String: [UInt8]] {
        Dictionary(uniqueKeysWithValues: try CPIOEntry.read(overlay).map { ($0.name, $0.data) })
    }

    @Test func commandsKeepEveryByte() throws {
        let words: [[UInt8]] = [Array("sh".utf8), [], Array(1...255), Array("it's \"$x\" `y` \\\n".utf8)]
        let overlay = try Initramfs.commandOverlay(commandBytes: words, terminal: false)
        let files = try entries(overlay)
        #expect(
            files["mingle/command"]?.split(separator: 0, omittingEmptySubsequences: false).dropLast().map(
                Array.init) == words)
        #expect(files["mingle/terminal"] == nil && files["mingle/environment"] == nil)
        #expect(overlay.count % CPIOArchive.blockSize == 0)
    }

    @Test func environmentAndTerminal() throws {
        let overlay = try Initramfs.commandOverlay(
            command: ["top"], environment: ["TERM": "xterm", "A": "b=c"], terminal: true,
            size: .init(rows: 50, columns: 132))
        let files = try entries(overlay)
        #expect(files["mingle/environment"] == Array("A=b=c\0TERM=xterm\0".utf8))
        #expect(files["mingle/terminal"] == Array("50 132\0".utf8))
        let unknown = try entries(Initramfs.commandOverlay(command: ["top"], terminal: true))
        #expect(unknown["mingle/terminal"] == Array("-\0".utf8))
    }

    @Test func refusesWhatNoProgramCanBeGiven() {
        func refused(_ command: [String], _ environment: [String: String] = [:]) -> Bool {
            let error = failure { () throws(GuestImagesError) in
                try Initramfs.commandOverlay(command: command, environment: environment, terminal: false)
            }
            if case .invalidCommand = error { return true }
            return false
        }
        #expect(refused([]))
        #expect(refused([""]))
        #expect(refused(["a", "b\0c"]))
        #expect(refused(["a"], ["": "x"]))
        #expect(refused(["a"], ["x=y": "x"]))
        #expect(refused(["a", String(repeating: "x", count: 128 << 10)]))
        #expect(refused(Array(repeating: String(repeating: "x", count: 100 << 10), count: 21)))
        #expect(!refused(["a", String(repeating: "x", count: (128 << 10) - 1)], ["x": "y=z"]))
    }

    @Test func theArchiveIsAlwaysTheSame() throws {
        func make(_ applets: [String]) throws -> [UInt8] {
            try Initramfs.archive(
                initScript: Array("init".utf8), guest: [1], busybox: [2], applets: applets,
                modules: [("pvpanic.ko", [3]), ("button.ko", [4])])
        }
        let first = try make(["sh", "busybox", "ls"])
        #expect(try make(["ls", "sh", "sh"]) == first)
        let files = try entries(first)
        #expect(files["bin/sh"] == Array("busybox".utf8) && files["bin/busybox"] == [2])
        #expect(files["mingle/modules/order"] == Array("pvpanic.ko\nbutton.ko\n".utf8))
        let console = try #require(try CPIOEntry.read(first).first { $0.name == "dev/console" })
        #expect(console.device == [5, 1])
    }

    /// With a made-up busybox that only knows how to list itself: the cache is hit by content.
    @Test func buildsOncePerContent() throws {
        try withTemporaryDirectory { directory in
            let cache = ImageCache(directory: "\(directory)/cache")
            let share = ShareDirectory(path: "\(directory)/share")
            try FileSystem.makeDirectory(share.linux)
            try FileSystem.write(Array("one".utf8), to: "\(share.linux)/init")
            try FileSystem.write([1, 2], to: "\(share.linux)/mingle-guest")
            let busybox = try #require(Tool.find("busybox"), "install busybox-static")
            let first = try Initramfs.build(cache: cache, share: share, busybox: busybox)
            let time = try #require(FileSystem.sizeAndTime(first)).modified
            #expect(try Initramfs.build(cache: cache, share: share, busybox: busybox) == first)
            #expect(FileSystem.sizeAndTime(first)?.modified == time)
            try FileSystem.write(Array("two".utf8), to: "\(share.linux)/init")
            let second = try Initramfs.build(cache: cache, share: share, busybox: busybox)
            #expect(second != first)
            let files = try entries(try FileSystem.read(second))
            #expect(files["init"] == Array("two".utf8))
            for round in 0..<10 {
                try FileSystem.write(Array("\(round)".utf8), to: "\(share.linux)/init")
                _ = try Initramfs.build(cache: cache, share: share, busybox: busybox)
            }
            #expect(FileSystem.names(in: cache.path("initramfs")).count == 8, "old ones are removed")
            #expect(files["bin/sh"] == Array("busybox".utf8))
            #expect(FileSystem.names(in: cache.directory).allSatisfy { !$0.hasPrefix(".building") })
        }
    }

    @Test func busyboxHasToBeStatic() throws {
        try withTemporaryDirectory { directory in
            let path = "\(directory)/busybox"
            let interpreter = Samples.Segment(type: 3, address: 0, data: Array("/lib64/ld.so\0".utf8))
            try FileSystem.write(
                Samples.elf(segments: [.init(address: 0, data: [1]), interpreter]), to: path)
            let error = failure { () throws(GuestImagesError) in try Busybox(path: path) }
            #expect(error?.description.contains("not static") == true)
        }
    }
}
