import Foundation
import Synchronization
import TestSupport
import Testing

@testable import GuestMemory
@testable import LinuxHost

private let gib: UInt64 = 1 << 30

private func makeMemory(_ size: UInt64) throws -> GuestMemory {
    try GuestMemory(sizeInBytes: size, lowLimit: GuestAddress(3 * gib), highStart: GuestAddress(4 * gib))
}

/// Size of memory; how much of it is below the hole and above.
private let splits: [(UInt64, UInt64, UInt64)] = [
    (3 * gib - 4096, 3 * gib - 4096, 0), (3 * gib, 3 * gib, 0), (3 * gib + 4096, 3 * gib, 4096),
    (4 * gib, 3 * gib, gib), (5 * gib, 3 * gib, 2 * gib),
]

@Suite struct GuestMemoryTests {
    // Nothing is touched but single pages, so the sizes cost nothing.
    @Test(arguments: splits)
    func memoryIsSplitAroundTheHole(size: UInt64, low: UInt64, high: UInt64) throws {
        let memory = try makeMemory(size)
        var expected = [
            MemoryRegion(
                range: try #require(GuestRange(start: GuestAddress(0), sizeInBytes: low)), fileOffset: 0)
        ]
        if high > 0 {
            let range = try #require(GuestRange(start: GuestAddress(4 * gib), sizeInBytes: high))
            expected.append(MemoryRegion(range: range, fileOffset: low))
        }
        #expect(memory.regions == expected)
        #expect(memory.dirtyBitmap.pageCount == Int(size / 4096))
        for region in memory.regions { try checkBoundaries(of: region, in: memory) }
        #expect(memory.pageIndex(of: GuestFrameNumber(3 * gib / 4096)) == nil)
        #expect(memory.pageIndex(of: GuestFrameNumber(UInt64.max)) == nil)
    }

    private func checkBoundaries(of region: MemoryRegion, in memory: GuestMemory) throws {
        let (start, end) = (region.range.start.value, region.range.end.value)
        let pattern: [UInt8] = [1, 2, 3, 4, 5, 6, 7, 8]
        for address in [start, end - 8] {
            try memory.write(pattern, at: GuestAddress(address))
            #expect(try memory.read(GuestAddress(address), count: 8) == pattern)
            #expect(try memory.load(UInt64.self, at: GuestAddress(address)) == 0x0807_0605_0403_0201)
        }
        for count in 1...8 {
            // One byte too far, and every way to lie across the end.
            let address = GuestAddress(end - UInt64(count) + 1)
            let error = GuestMemoryError.outOfRange(address, count: UInt64(count))
            #expect(throws: error) { try memory.read(address, count: count) }
            #expect(throws: error) { try memory.write(Array(pattern.prefix(count)), at: address) }
        }
        #expect(throws: GuestMemoryError.self) { try memory.store(UInt32(1), at: GuestAddress(end - 3)) }
        #expect(throws: GuestMemoryError.self) { try memory.load(UInt64.self, at: GuestAddress(end)) }
        if start > 0 {
            #expect(throws: GuestMemoryError.self) { try memory.read(GuestAddress(start - 1), count: 2) }
        }
        #expect(memory.pageIndex(of: region.range.start.frame) == Int(region.fileOffset / 4096))
        #expect(memory.isRAM(region.range))
        #expect(
            memory.hostAddress(of: region) == memory.hostAddress(of: memory.regions[0]) + region.fileOffset)
        let beyond = try #require(
            GuestRange(start: region.range.start, sizeInBytes: region.range.sizeInBytes + 1))
        #expect(!memory.isRAM(beyond))
    }

    @Test func theTwoRegionsDoNotOverlapInTheFile() throws {
        let memory = try makeMemory(4 * gib)
        try memory.store(UInt64(0xAAAA), at: GuestAddress(3 * gib - 8))
        try memory.store(UInt64(0xBBBB), at: GuestAddress(4 * gib))
        #expect(try memory.load(UInt64.self, at: GuestAddress(3 * gib - 8)) == 0xAAAA)
        #expect(try memory.load(UInt64.self, at: GuestAddress(4 * gib)) == 0xBBBB)
        let straddling = try #require(
            GuestRange(start: GuestAddress(3 * gib - 4096), sizeInBytes: gib + 8192))
        #expect(!memory.isRAM(straddling))
        #expect(throws: GuestMemoryError.self) { try memory.read(GuestAddress(UInt64.max), count: 1) }
        #expect(throws: GuestMemoryError.self) { try memory.read(GuestAddress(0), count: Int.max) }
        #expect(throws: GuestMemoryError.self) { try memory.read(GuestAddress(0), count: -1) }
    }

    @Test(arguments: [0, 1, 4095, 4097, GuestMemory.maximumSizeInBytes + 4096, UInt64.max])
    func sizesThatCannotBeAreRefused(size: UInt64) {
        #expect(throws: GuestMemoryError.invalidSize(bytes: size)) { try makeMemory(size) }
    }

    @Test func integersAreLittleEndian() throws {
        let memory = try makeMemory(4096)
        try memory.store(UInt8(0x12), at: GuestAddress(0))
        try memory.store(UInt16(0x3456), at: GuestAddress(1))
        try memory.store(UInt32(0x789A_BCDE), at: GuestAddress(3))
        try memory.store(UInt64(0x0102_0304_0506_0708), at: GuestAddress(7))
        #expect(
            try memory.read(GuestAddress(0), count: 15) == [
                0x12, 0x56, 0x34, 0xDE, 0xBC, 0x9A, 0x78, 8, 7, 6, 5, 4, 3, 2, 1,
            ])
        #expect(try memory.load(UInt8.self, at: GuestAddress(0)) == 0x12)
        #expect(try memory.load(UInt16.self, at: GuestAddress(1)) == 0x3456)
        #expect(try memory.load(UInt32.self, at: GuestAddress(3)) == 0x789A_BCDE)
    }

    @Test func writesMarkTheirPagesAndReadsNone() throws {
        let memory = try makeMemory(16 * 4096)
        func dirty() -> [Int] { (0..<16).filter { memory.dirtyBitmap.isMarked($0) } }
        _ = try memory.read(GuestAddress(0), count: 16 * 4096)
        _ = try memory.load(UInt64.self, at: GuestAddress(4096))
        try memory.write([], at: GuestAddress(8192))
        #expect(dirty() == [])
        try memory.write([1], at: GuestAddress(2 * 4096 - 1))
        #expect(dirty() == [1])
        try memory.write([1, 2], at: GuestAddress(4 * 4096 - 1))
        #expect(dirty() == [1, 3, 4])
        try memory.store(UInt32(1), at: GuestAddress(15 * 4096))
        #expect(dirty() == [1, 3, 4, 15])
        try memory.write([UInt8](repeating: 7, count: 4096), at: GuestAddress(7 * 4096))
        #expect(dirty() == [1, 3, 4, 7, 15])
        #expect(throws: GuestMemoryError.self) { try memory.write([1, 2], at: GuestAddress(16 * 4096 - 1)) }
        #expect(dirty() == [1, 3, 4, 7, 15])
    }

    @Test func aFileIsReadInPlaceAndAShortOneSaysSo() throws {
        let directory = try TemporaryDirectory()
        var random = SeededGenerator(seed: 1)
        let bytes = (0..<10_000).map { _ in random.byte() }
        let file = try OwnedDescriptor.open(directory.write("file", bytes), flags: O_RDONLY)
        let memory = try makeMemory(8 * 4096)
        try memory.readFile(file, at: 100, count: 9900, to: GuestAddress(4000))
        #expect(try memory.read(GuestAddress(4000), count: 9900) == Array(bytes[100...]))
        #expect(try memory.read(GuestAddress(0), count: 4000).allSatisfy { $0 == 0 })
        #expect(
            (0..<8).map { memory.dirtyBitmap.isMarked($0) } == [
                true, true, true, true, false, false, false, false,
            ])
        #expect(throws: GuestMemoryError.shortFile(GuestAddress(0), expected: 101, completed: 100)) {
            try memory.readFile(file, at: 9900, count: 101, to: GuestAddress(0))
        }
        #expect(throws: GuestMemoryError.shortFile(GuestAddress(0), expected: 1, completed: 0)) {
            try memory.readFile(file, at: UInt64.max, count: 1, to: GuestAddress(0))
        }
        #expect(throws: GuestMemoryError.outOfRange(GuestAddress(4096), count: 7 * 4096 + 1)) {
            try memory.readFile(file, at: 0, count: 7 * 4096 + 1, to: GuestAddress(4096))
        }
        let closed = OwnedDescriptor(adopting: -1)
        #expect(throws: GuestMemoryError.system(LinuxError(operation: "pread", code: EBADF))) {
            try memory.readFile(closed, at: 0, count: 1, to: GuestAddress(0))
        }
        #expect((0..<8).allSatisfy { memory.inFlight.count($0) == 0 })
    }

    /// A write long enough to be watched: pages count as in flight while it goes on, and no longer.
    @Test func pagesAreInFlightDuringAWriteOnly() throws {
        let size = 64 << 20
        let memory = try makeMemory(UInt64(size))
        let file = try OwnedDescriptor.memoryFile(named: "test")
        try file.truncate(to: UInt64(size))
        let seen = Atomic(0)
        let stop = Atomic(false)
        try withWatchdog(seconds: 60, "watching a write") {
            let watcher = try HostThread(name: "watcher") {
                while !stop.load(ordering: .relaxed) {
                    if memory.inFlight.count(5) == 1 { seen.add(1, ordering: .relaxed) }
                    sched_yield()
                }
            }
            while seen.load(ordering: .relaxed) == 0 {
                try memory.readFile(file, at: 0, count: UInt64(size) - 4096, to: GuestAddress(4096))
            }
            stop.store(true, ordering: .relaxed)
            watcher.join()
        }
        #expect((0..<size / 4096).allSatisfy { memory.inFlight.count($0) == 0 })
        #expect(!memory.dirtyBitmap.isMarked(0) && memory.dirtyBitmap.isMarked(5))
    }

    @Test func errorsSayWhatWasWrong() {
        #expect(
            GuestMemoryError.invalidSize(bytes: 5).description
                == "guest memory of 5 bytes: must be a multiple of 4096, at least one page and at most 256 GiB"
        )
        #expect(
            GuestMemoryError.outOfRange(GuestAddress(0x1000), count: 2).description
                == "2 bytes at guest address 0x1000 are not all RAM")
        #expect(
            GuestMemoryError.shortFile(GuestAddress(16), expected: 9, completed: 3).description
                == "file ended after 3 of 9 bytes for guest address 0x10")
    }
}

@Suite("Memory given back")
struct DiscardTests {
    @Test("reads as zeros and takes nothing", arguments: GuestMemory.Backing.allCases)
    func discard(backing: GuestMemory.Backing) throws {
        let memory = try GuestMemory(
            sizeInBytes: 1 << 20, lowLimit: GuestAddress(1 << 30), highStart: GuestAddress(1 << 32),
            backing: backing)
        try memory.write([UInt8](repeating: 7, count: 65536), at: GuestAddress(4096))
        if backing == .memoryFile { #expect(memory.allocatedBytes >= 65536) }
        memory.discard()
        #expect(memory.allocatedBytes == 0)
        #expect(try memory.load(UInt64.self, at: GuestAddress(4096)) == 0)
    }
}
