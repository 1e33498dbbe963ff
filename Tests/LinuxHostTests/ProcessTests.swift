import Foundation
import TestSupport
import Testing

@testable import LinuxHost

/// What this process has and may have, read through files that stay open.
@Suite(.serialized) struct ProcessTests {
    @Test func linesOfMaps() {
        let text = """
            7f0a12345000-7f0a12347000 rw-s 00003000 00:01 81234                      /memfd:mingle:a-b c (deleted)
            7f0a12347000-7f0a12348000 r--p 00000000 00:00 0 
            ffffffffff600000-ffffffffff601000 --xp 00000000 00:00 0                  [vsyscall]

            """
        var parser = ProcessMaps.Parser()
        let found = text.utf8.compactMap { parser.take($0) }
        #expect(
            found == [
                .init(start: 0x7f0a_1234_5000, end: 0x7f0a_1234_7000, isShared: true, inode: 81234),
                .init(start: 0x7f0a_1234_7000, end: 0x7f0a_1234_8000, isShared: false, inode: 0),
                .init(
                    start: 0xffff_ffff_ff60_0000, end: 0xffff_ffff_ff60_1000, isShared: false, inode: 0),
            ])
    }

    /// Many more than the buffer holds.
    @Test func ownMappings() throws {
        let pages = 1001
        let base = try #require(mmap(nil, pages * 4096, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0))
        defer { munmap(base, pages * 4096) }
        for page in stride(from: 1, to: pages, by: 2) { mprotect(base + page * 4096, 4096, PROT_READ) }
        let range = UInt(bitPattern: base)..<UInt(bitPattern: base) + UInt(pages * 4096)
        let maps = try ProcessMaps()
        for _ in 0..<2 {
            var (inside, last) = (0, UInt(0))
            try maps.forEach { entry in
                #expect(entry.start >= last && entry.end > entry.start)
                last = entry.end
                if range.contains(entry.start), entry.end <= range.upperBound { inside += 1 }
            }
            // The first and the last may be joined with what lies next to them.
            #expect((pages - 2...pages).contains(inside))
        }
    }

    @Test func limits() async throws {
        #expect(ProcessLimits().mappingLimit() > 1000)
        #expect(ProcessLimits().anonymousBytes() > 0)
        await #expect(processExitsWith: .success) {
            let limits = ProcessLimits()
            let before = limits.addressSpaceLeft()
            var limit = rlimit(rlim_cur: 1 << 45, rlim_max: .max)
            setrlimit(__rlimit_resource_t(RLIMIT_AS.rawValue), &limit)
            let left = limits.addressSpaceLeft()
            let place = mmap(nil, 64 << 20, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0)
            let less = limits.addressSpaceLeft()
            exit(before == .max && place != MAP_FAILED && left < 1 << 45 && left - less == 64 << 20 ? 0 : 1)
        }
    }

    /// At its limit of address space, what was got before is still there, and more is refused and no crash.
    @Test func heapInReserve() async throws {
        // Other threads of a test process have heaps of their own.
        await #expect(processExitsWith: .success) { await MainActor.run { Self.useHeapAtLimit() } }
    }

    private static func useHeapAtLimit() {
        HeapReserve.prepare()
        guard HeapReserve.has(HeapReserve.size) else { exit(1) }
        var limit = rlimit(rlim_cur: 1, rlim_max: .max)
        setrlimit(__rlimit_resource_t(RLIMIT_AS.rawValue), &limit)
        guard HeapReserve.has(6 << 20), !HeapReserve.has(1 << 30) else { exit(2) }
        for _ in 0..<100 {
            // One of a size that is mapped otherwise, and many small ones.
            var large = [UInt8](repeating: 1, count: 3 << 20)
            var small = (0..<1000).map { [Int](repeating: $0, count: 100) }
            large[large.count - 1] = 2
            small[999][99] = Int(large[large.count - 1])
            guard small[999][99] == 2 else { exit(3) }
        }
        let before = ProcessLimits().anonymousBytes()
        HeapReserve.giveBack()
        // Some megabytes were used, and are the host's again; they can be had as before.
        guard ProcessLimits().anonymousBytes() + (2 << 20) < before else { exit(4) }
        guard HeapReserve.has(6 << 20) else { exit(5) }
        exit(0)
    }

    @Test func smallFiles() throws {
        let folder = try TemporaryDirectory()
        let path = try folder.write(
            "stat", Array("high 3\nhigher 4\n  x 5\nmax: 18446744073709551616\nlast 7".utf8))
        let files = SmallFiles()
        #expect(files.load(path))
        #expect(files.value("high") == 3 && files.value("higher") == 4 && files.value("last") == 7)
        #expect(files.value("hig") == nil && files.value("max") == nil && files.value("x") == nil)
        // Read anew through the file that is open.
        let handle = try #require(FileHandle(forWritingAtPath: path))
        handle.write(Data("high 9\n".utf8))
        #expect(files.load(path) && files.value("high") == 9)
        let number = try folder.write("number", Array("42\n".utf8))
        #expect(files.number(in: number) == 42)
        #expect(files.number(in: try folder.write("most", Array("max\n".utf8))) == nil)
        #expect(!files.load(folder.path("none")) && files.value("high") == nil)
    }
}
