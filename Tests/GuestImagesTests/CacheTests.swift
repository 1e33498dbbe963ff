import Dispatch
import FoundationEssentials
import Glibc
import LinuxHost
import Synchronization
import Testing

@testable import GuestImages

@Suite struct ImageCacheTests {
    @Test func directoryFollowsTheXDGRules() throws {
        #expect(try ImageCache(environment: ["XDG_CACHE_HOME": "/x", "HOME": "/h"]).directory == "/x/mingle")
        #expect(
            try ImageCache(environment: ["XDG_CACHE_HOME": "x", "HOME": "/h"]).directory == "/h/.cache/mingle"
        )
        #expect(
            try ImageCache(environment: ["XDG_CACHE_HOME": "", "HOME": "/h"]).directory == "/h/.cache/mingle")
        #expect(
            failure { () throws(GuestImagesError) in try ImageCache(environment: [:]) } == .noCacheDirectory)
    }

    @Test func writesReplaceWholeFiles() throws {
        try withTemporaryDirectory { directory in
            let cache = ImageCache(directory: "\(directory)/c")
            let path = try cache.write([1, 2, 3], to: "a/b", permissions: 0o755)
            try cache.write([4], to: "a/b")
            #expect(try FileSystem.read(path) == [4])
            #expect(FileSystem.names(in: "\(directory)/c/a") == ["b"], "no temporary file stays")
            let mode = try FileManager.default.attributesOfItem(atPath: "\(directory)/c")[.posixPermissions]
            #expect(mode as? Int == 0o700 || mode as? UInt16 == 0o700)
        }
    }

    @Test func aFailedWriteLeavesTheOldFile() throws {
        try withTemporaryDirectory { directory in
            try FileSystem.write([1], to: "\(directory)/file")
            // A directory with something in it cannot be replaced by a file.
            try FileSystem.makeDirectory("\(directory)/full/inside")
            let error = failure { () throws(GuestImagesError) in
                try FileSystem.write([2], to: "\(directory)/full")
            }
            #expect(error?.description.contains("rename") == true)
            #expect(FileSystem.names(in: directory) == ["file", "full"])
        }
    }

    @Test func oneBuilderAtATime() throws {
        try withTemporaryDirectory { directory in
            let cache = ImageCache(directory: directory)
            let inside = Mutex((now: 0, most: 0, runs: 0))
            DispatchQueue.concurrentPerform(iterations: 8) { _ in
                let error = failure { () throws(GuestImagesError) in
                    try cache.withLock("k") { () throws(GuestImagesError) in
                        inside.withLock { $0 = ($0.now + 1, max($0.most, $0.now + 1), $0.runs + 1) }
                        usleep(5000)
                        inside.withLock { $0.now -= 1 }
                    }
                }
                #expect(error == nil)
            }
            #expect(inside.withLock { $0 } == (now: 0, most: 1, runs: 8))
        }
    }

    @Test func aFailedInstallationLeavesTheOldOne() throws {
        try withTemporaryDirectory { directory in
            let cache = ImageCache(directory: directory)
            func install(_ byte: UInt8, fail: Bool) throws(GuestImagesError) -> String {
                try cache.install("kernels/x") { target throws(GuestImagesError) in
                    try FileSystem.write([byte], to: "\(target)/file")
                    if fail { throw .noCacheDirectory }
                }
            }
            let path = try install(1, fail: false)
            #expect(
                failure { () throws(GuestImagesError) in try install(2, fail: true) } == .noCacheDirectory)
            #expect(try FileSystem.read("\(path)/file") == [1])
            #expect(try install(3, fail: false) == path)
            #expect(try FileSystem.read("\(path)/file") == [3])
            #expect(FileSystem.names(in: directory) == ["kernels"])
        }
    }

    /// Who was killed left a directory; who runs holds a lock on its own.
    @Test func leftoversGoAndRunningBuildersAreSpared() throws {
        try withTemporaryDirectory { directory in
            let cache = ImageCache(directory: "\(directory)/c")
            try FileSystem.makeDirectory(cache.path(".building-1-23/root"))
            try FileSystem.write([1, 2, 3], to: cache.path(".building-1-23/root/file"))
            try cache.write([1], to: "initramfs/a.cpio")
            try FileSystem.makeDirectory(cache.path("busybox"))
            for name in ["initramfs/b.cpio.7.8.new", "busybox/busybox.7.8.new"] {
                try FileManager.default.createDirectory(
                    atPath: cache.path("busybox"), withIntermediateDirectories: true)
                try Data([1, 2]).write(to: URL(filePath: cache.path(name)))
            }
            try cache.withTemporaryDirectory { running throws(GuestImagesError) in
                #expect(!FileSystem.exists(cache.path(".building-1-23")), "a new builder clears away")
                try FileSystem.makeDirectory(cache.path(".building-4-56"))
                try cache.withLock("busybox") { () throws(GuestImagesError) in
                    #expect(try cache.removeLeftovers() == 2, "b.cpio's; the busybox is being written")
                }
                #expect(FileSystem.isDirectory(running))
                #expect(!FileSystem.exists(cache.path(".building-4-56")))
                #expect(FileSystem.names(in: cache.path("initramfs")) == ["a.cpio"])
                #expect(FileSystem.names(in: cache.path("busybox")) == ["busybox.7.8.new"])
            }
            #expect(try cache.removeLeftovers() == 2)
            #expect(FileSystem.names(in: cache.path("busybox")).isEmpty)
            #expect(!FileSystem.names(in: cache.directory).contains { $0.hasPrefix(".") })
            #expect(try ImageCache(directory: "\(directory)/none").removeLeftovers() == 0)
        }
    }

    @Test(arguments: [ENOSPC, EDQUOT]) func wantOfRoomIsNamed(code: Int32) throws {
        try withTemporaryDirectory { directory in
            let cache = ImageCache(directory: directory)
            let words = LinuxError.message(code)
            let failures: [GuestImagesError] = [
                .file(operation: "write", path: "x", reason: words),
                .toolFailed(command: "dpkg-deb", status: 2, output: "cannot copy to 'x' (\(words))"),
            ]
            for cause in failures {
                let error = failure { () throws(GuestImagesError) in
                    try cache.withLock("k") { () throws(GuestImagesError) in throw cause }
                }
                #expect(error == .noRoom(cache: directory, reason: cause.description))
                #expect(error?.description.contains(words) == true)
                #expect(error?.description.contains("XDG_CACHE_HOME") == true)
            }
            let other = GuestImagesError.toolFailed(command: "apt-get", status: 1, output: "no network")
            let error = failure { () throws(GuestImagesError) in
                try cache.withLock("k") { () throws(GuestImagesError) in throw other }
            }
            #expect(error == other)
        }
    }

    /// The examples of FIPS 180-4 (NIST's SHA256.pdf and SHA2_Additional.pdf).
    @Test func digestsAreSHA256() {
        #expect(
            SHA256.hexadecimalDigest(of: [])
                == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855")
        #expect(
            SHA256.hexadecimalDigest(of: Array("abc".utf8))
                == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad")
        #expect(
            SHA256.hexadecimalDigest(
                of: Array("abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq".utf8))
                == "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1")
        #expect(
            SHA256.hexadecimalDigest(of: [UInt8](repeating: 0x61, count: 1_000_000))
                == "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0")
    }

    @Test func digestsOfPiecesAreThoseOfTheWhole() {
        var pieces = SHA256()
        for length in [0, 1, 63, 64, 65, 200] { pieces.update([UInt8](repeating: 0x61, count: length)) }
        #expect(pieces.finish() == SHA256.hexadecimalDigest(of: [UInt8](repeating: 0x61, count: 393)))
    }
}

@Suite struct ToolTests {
    @Test func reportsStatusAndComplaint() throws {
        try withTemporaryDirectory { directory in
            let good = try Tool.run(["sh", "-c", "echo out; pwd"], scratch: directory, inScratch: true)
            #expect(good.text == "out\n\(FileSystem.realPath(directory))\n")
            let failed = failure { () throws(GuestImagesError) in
                try Tool.run(["sh", "-c", "echo bad >&2; exit 3"], scratch: directory)
            }
            #expect(failed == .toolFailed(command: "sh -c echo bad >&2; exit 3", status: 3, output: "bad"))
            let killed = failure { () throws(GuestImagesError) in
                try Tool.run(["sh", "-c", "kill -9 $$"], scratch: directory)
            }
            #expect(killed == .toolFailed(command: "sh -c kill -9 $$", status: 137, output: ""))
            let missing = failure { () throws(GuestImagesError) in
                try Tool.run(["/nowhere/apt-get"], scratch: directory)
            }
            #expect(
                missing
                    == .toolFailed(
                        command: "/nowhere/apt-get", status: 127, output: "No such file or directory"))
            #expect(FileSystem.names(in: directory).isEmpty)
            // Nothing of what it says goes to a disk, which may be full.
            let nowhere = failure { () throws(GuestImagesError) in
                try Tool.run(["sh", "-c", "echo out; echo full >&2; exit 2"], scratch: "\(directory)/none")
            }
            #expect(
                nowhere
                    == .toolFailed(
                        command: "sh -c echo out; echo full >&2; exit 2", status: 2, output: "full"))
        }
    }

    @Test func outputHasALimit() throws {
        try withTemporaryDirectory { directory in
            let whole = try Tool.run(["head", "-c", "16777216", "/dev/zero"], scratch: directory)
            #expect(whole.output.count == 16 << 20)
            let error = failure { () throws(GuestImagesError) in
                try Tool.run(["head", "-c", "16777217", "/dev/zero"], scratch: directory)
            }
            #expect(error?.description.contains("more than 16777216 bytes") == true)
        }
    }
}

@Suite struct ShareDirectoryTests {
    @Test func isFoundInOrder() throws {
        try withTemporaryDirectory { root in
            let root = FileSystem.realPath(root)
            try FileSystem.makeDirectory("\(root)/src/.build/debug")
            try FileSystem.makeDirectory("\(root)/src/.build-guests")
            try FileSystem.makeDirectory("\(root)/other/sub")
            try FileSystem.makeDirectory("\(root)/other/.build-guests")
            func find(_ environment: [String: String] = [:], _ program: String) throws(GuestImagesError)
                -> String
            {
                try ShareDirectory.find(
                    environment: environment, executable: program, currentDirectory: "\(root)/other/sub"
                ).path
            }
            let program = "\(root)/src/.build/debug/mingle"
            #expect(try find([:], program) == "\(root)/src/.build-guests")
            #expect(try find(["MINGLE_SHARE": "\(root)/other"], program) == "\(root)/other")
            #expect(try find([:], "\(root)/bin/mingle") == "\(root)/other/.build-guests")
            try FileSystem.makeDirectory("\(root)/src/.build/share/mingle")
            #expect(try find([:], program) == "\(root)/src/.build/share/mingle")
            let error = failure { () throws(GuestImagesError) in
                try find(["MINGLE_SHARE": "\(root)/none"], program)
            }
            #expect(error == .noShareDirectory(searched: ["\(root)/none"]))
            #expect(error?.description.contains("make guests") == true)
        }
    }

    @Test func payloadsAreListedAndChecked() throws {
        try withTemporaryDirectory { root in
            let share = ShareDirectory(path: root)
            let catalogue = PayloadCatalogue(share: share)
            let none = failure { () throws(GuestImagesError) in try catalogue.find("fill") }
            #expect(none?.description.contains("make guests") == true)
            try FileSystem.makeDirectory(share.payloads)
            let files: [(String, [UInt8])] = [
                ("fill", Samples.payload()), ("newer", Samples.payload(version: 2)),
                ("flags", Samples.payload(flags: 1)), ("other", Samples.payload(name: "Single")),
                ("kernel", Samples.vmlinux(size: 100)), ("text", Array("hello".utf8)),
            ]
            for (name, bytes) in files { try FileSystem.write(bytes, to: "\(share.payloads)/\(name).elf") }
            try FileSystem.write([], to: "\(share.payloads)/README.md")
            #expect(catalogue.payloads.map(\.name) == ["fill", "flags", "kernel", "newer", "other", "text"])
            #expect(try catalogue.find("fill").path == "\(share.payloads)/fill.elf")
            for (name, word) in [
                ("newer", "ABI 2"), ("flags", "flags 0"), ("other", "no Mingle note"),
                ("kernel", "no Mingle note"),
                ("text", "not an ELF file"), ("nope", "fill, flags"), ("../payloads/fill", "fill, flags"),
            ] {
                let error = failure { () throws(GuestImagesError) in try catalogue.find(name) }
                #expect(error?.description.contains(word) == true, "\(name): \(String(describing: error))")
            }
        }
    }
}
