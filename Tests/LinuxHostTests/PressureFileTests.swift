import Foundation
import Testing
import TestSupport

@testable import LinuxHost

@Suite("The kernel's account of waiting for memory") struct PressureFileTests {
    private static func text(_ some: Int, _ full: Int) -> String {
        "some avg10=0.00 avg60=1.50 avg300=0.00 total=\(some)\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=\(full)\n"
    }

    @Test("is read, and refused when it is something else")
    func reading() {
        #expect(
            MemoryStalls(text: Self.text(12345, 678))
                == MemoryStalls(someMicroseconds: 12345, fullMicroseconds: 678))
        for text in ["", "some total=1\n", "some avg10=1\nfull avg10=2\n", "some total=x\nfull total=1\n"] {
            #expect(MemoryStalls(text: text) == nil)
        }
    }

    @Test("is our control group's where that has one, else the host's")
    func places() throws {
        let folder = try TemporaryDirectory()
        func write(_ name: String, _ text: String) throws {
            let file = folder.path + "/" + name
            try FileManager.default.createDirectory(
                atPath: (file as NSString).deletingLastPathComponent, withIntermediateDirectories: true)
            try Data(text.utf8).write(to: URL(fileURLWithPath: file))
        }
        #expect(PressureFile(root: folder.path).stalls() == nil)
        try write("proc/pressure/memory", Self.text(1, 2))
        try write("proc/self/cgroup", "4:memory:/m\n0::/a/b\n")
        let host = PressureFile(root: folder.path)
        #expect(host.stalls() == MemoryStalls(someMicroseconds: 1, fullMicroseconds: 2))
        // Version 2 lies beside version 1, or is all there is.
        try write("sys/fs/cgroup/unified/a/b/memory.pressure", Self.text(3, 4))
        #expect(PressureFile(root: folder.path).stalls()?.someMicroseconds == 3)
        try write("sys/fs/cgroup/cgroup.controllers", "memory\n")
        try write("sys/fs/cgroup/a/b/memory.pressure", Self.text(5, 6))
        let group = PressureFile(root: folder.path)
        #expect(group.stalls() == MemoryStalls(someMicroseconds: 5, fullMicroseconds: 6))
        try write("sys/fs/cgroup/a/b/memory.pressure", Self.text(7, 8))
        #expect(group.stalls()?.fullMicroseconds == 8)
    }

    @Test(
        "counts up on this host",
        .enabled(if: PressureFile().stalls() != nil, "this host's kernel does not count waiting for memory"))
    func here() throws {
        let file = PressureFile()
        let before = try #require(file.stalls())
        let after = try #require(file.stalls())
        #expect(after.someMicroseconds >= before.someMicroseconds)
        #expect(after.fullMicroseconds >= before.fullMicroseconds)
    }

    @Test("what this process holds is what it touched")
    func own() {
        let before = ProcessLimits().anonymousBytes()
        #expect(before > 64 << 10)
        let bytes = [UInt8](repeating: 7, count: 64 << 20)
        #expect(ProcessLimits().anonymousBytes() > before + (48 << 20))
        #expect(bytes.last == 7)
    }

    @Test("bounds of this host are plausible")
    func bounds() throws {
        let bounds = MemoryBound.all()
        let host = try #require(bounds.first)
        #expect(host.group == nil && host.totalBytes > 128 << 20 && host.availableBytes <= host.totalBytes)
        for bound in bounds.dropFirst() {
            #expect(bound.group != nil && bound.totalBytes < host.totalBytes)
            #expect(bound.availableBytes <= bound.totalBytes)
        }
    }
}
