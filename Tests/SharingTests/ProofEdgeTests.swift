@testable import FrameStore
import CLinux
import Foundation
import GuestMemory
import LinuxHost
import Synchronization
import TestSupport
import Testing

@testable import Sharing

/// Invariants 6 and 7 on this kernel: what is replaced keeps its bytes, what counts as private is private.
@Suite(.serialized) struct ProofEdgeTests {
    private static func entry(_ guest: EdgeGuest, _ page: Int) throws -> UInt64 {
        let map = try OwnedDescriptor.open("/proc/self/pagemap", flags: O_RDONLY)
        let address = UInt64(UInt(bitPattern: guest.memory.mapping.base)) + UInt64(page) * 4096
        return try map.read(count: 8, at: address >> 12 * 8).reversed().reduce(0) { $0 << 8 | UInt64($1) }
    }
    private static let present: UInt64 = 1 << 63
    private static let swapped: UInt64 = 1 << 62
    private static let file: UInt64 = 1 << 61
    private static let marked: UInt64 = 1 << 57

    /// A run is mapped anew over pages that were written since: they keep what was written, again and again.
    @Test(.needs(.userfaultfd)) func runsOverUnsharedPages() throws {
        let guest = try EdgeGuest(pages: 16)
        for page in 0..<64 { guest.store.write(UInt8(page % 16 + 1), page) }
        for page in 0..<16 { guest.fill(page, UInt8(page + 1)) }
        try guest.mapping.mapFrames(0..<16, FrameLocation(0))
        guest.mapping.punchHome(0..<16)
        var expected = (0..<16).map { UInt8($0 + 1) }
        for round in 1..<4 {
            for page in stride(from: round, to: 16, by: 5) {
                guest.fill(page, UInt8(100 + round * 16 + page))
                expected[page] = UInt8(100 + round * 16 + page)
            }
            let kept = (0..<16).filter { expected[$0] != UInt8($0 + 1) }
            #expect(guest.mapping.arePrivate(0..<16) == (0..<16).map(kept.contains))
            try guest.window(0..<16) {
                try guest.mapping.mapFrames(0..<16, FrameLocation(UInt64(round * 16)), keeping: kept)
            }
            #expect((0..<16).map(guest.byte) == expected)
            #expect(guest.mapping.arePrivate(0..<16) == (0..<16).map(kept.contains))
            // What lies under a private copy is no part of the guest.
            for page in kept { guest.store.punch(round * 16 + page) }
            #expect((0..<16).map(guest.byte) == expected)
        }
        // Zeros and frames over private copies that hold the same.
        guest.fill(5, 0)
        try guest.mapping.mapZero(5..<6)
        #expect(guest.byte(5) == 0 && guest.mapping.arePrivate(5..<6) == [false])
    }

    /// A zero page that was only read is present and of no file.
    @Test func aZeroPageThatWasReadIsNotPrivate() throws {
        let guest = try EdgeGuest(pages: 4)
        try guest.mapping.mapZero(0..<4)
        #expect(guest.byte(1) == 0)
        let entry = try Self.entry(guest, 1)
        #expect(entry & Self.present != 0 && entry & Self.file == 0, "the deceptive look is gone: \(entry)")
        #expect(guest.mapping.arePrivate(0..<4) == [false, false, false, false])
        guest.fill(1, 0)
        #expect(guest.mapping.arePrivate(0..<4) == [false, true, false, false])
    }

    /// The marker that write protection leaves where nothing was touched looks swapped out.
    @Test(.needs(.userfaultfd)) func aMarkerIsNotPrivate() throws {
        let guest = try EdgeGuest(pages: 4)
        guest.store.write(1, 0)
        guest.store.write(2, 1)
        try guest.mapping.mapFrames(0..<2, FrameLocation(0))
        // Without the look at each page that the engine's windows begin with.
        let userFault = try #require(guest.mapping.userFault)
        let start = UInt(bitPattern: guest.memory.mapping.base)
        try userFault.protect(start, 8192, true)
        let entry = try Self.entry(guest, 0)
        print("a marker: \(String(entry, radix: 16))")
        #expect(entry & Self.swapped != 0 && entry & Self.marked != 0, "the deceptive look is gone: \(entry)")
        #expect(guest.mapping.arePrivate(0..<2) == [false, false])
        try userFault.protect(start, 8192, false)
        userFault.unregister(start, 8192)
        #expect(guest.mapping.arePrivate(0..<2) == [false, false])
        #expect(guest.byte(0) == 1)
    }

    /// Readers see a protected page's bytes and do not wait; a writer waits, and its write is there after the release.
    @Test(.needs(.userfaultfd)) func readersGoOn() throws {
        let guest = try EdgeGuest(pages: 4)
        for page in 0..<4 { guest.fill(page, 7) }
        guest.store.write(7, 0)
        let pages = 1..<2
        try guest.mapping.prepareWindow(pages)
        try guest.mapping.protect(pages)
        let hasWritten = Atomic(false)
        let group = DispatchGroup()
        try withWatchdog(seconds: 60, "reading through protection") {
            onThreads(2) { _ in for page in 0..<4 { #expect(guest.byte(page) == 7) } }
            #expect(try guest.bytes(1) == [UInt8](repeating: 7, count: 4096))
            group.enter()
            Thread.detachNewThread {
                mingle_store64(guest.word(1, 3), 9)
                hasWritten.store(true, ordering: .releasing)
                group.leave()
            }
            // Long enough for the writer to come; it may be late, never early.
            for _ in 0..<20 {
                usleep(1000)
                let isEarly = hasWritten.load(ordering: .acquiring)
                #expect(!isEarly)
                #expect(guest.byte(1) == 7 && mingle_load64(guest.word(1, 3)) == 0x0707_0707_0707_0707)
            }
            guest.mapping.endView()
            #expect(guest.mapping.view(FrameLocation(0), count: 1))
            #expect(guest.mapping.equals(1, FrameLocation(0)))
            try guest.mapping.mapFrames(pages, FrameLocation(0))
            guest.mapping.release(pages, replaced: true)
            group.wait()
        }
        #expect(
            mingle_load64(guest.word(1, 3)) == 9 && mingle_load64(guest.word(1, 4)) == 0x0707_0707_0707_0707)
        #expect(guest.mapping.arePrivate(pages) == [true])
        var frame = [UInt8](repeating: 0, count: 4096)
        #expect(pread(guest.store.file.number, &frame, 4096, 0) == 4096)
        #expect(frame == [UInt8](repeating: 7, count: 4096), "the frame is untouched")
    }

    /// One window over pages of several mappings, as the engine opens it.
    @Test(.needs(.userfaultfd)) func windowsOverSeveralMappings() throws {
        let guest = try EdgeGuest(pages: 8)
        for page in 0..<16 { guest.store.write(UInt8(page % 8 + 1), page) }
        for page in 0..<8 { guest.fill(page, UInt8(page + 1)) }
        try guest.mapping.mapFrames(2..<3, FrameLocation(2))
        try guest.mapping.mapFrames(5..<6, FrameLocation(13))
        try guest.window(0..<8) {
            try guest.mapping.mapFrames(0..<8, FrameLocation(0))
            return true
        }
        #expect((0..<8).map(guest.byte) == (1...8).map { UInt8($0) })
        guest.fill(4, 99)
        #expect(guest.mapping.arePrivate(0..<8) == (0..<8).map { $0 == 4 })
    }

    /// The kernel takes a private copy to swap; it stays one, under write protection too.
    @Test(.needs(.lab), .needs(.userfaultfd)) func swappedPagesArePrivateInTheLab() throws {
        #expect(try Self.run("mkswap", "/dev/vda") == 0 && Self.run("swapon", "/dev/vda") == 0)
        defer { _ = try? Self.run("swapoff", "/dev/vda") }
        let guest = try EdgeGuest(pages: 8)
        for page in 0..<8 { guest.store.write(3, page) }
        try guest.mapping.mapFrames(0..<8, FrameLocation(0))
        for page in 0..<4 { guest.fill(page, UInt8(page + 40)) }
        for page in 4..<8 { #expect(guest.byte(page) == 3) }
        // MADV_PAGEOUT (asm-generic/mman-common.h).
        #expect(madvise(guest.memory.mapping.base, 8 * 4096, 21) == 0)
        let entries = try (0..<4).map { try Self.entry(guest, $0) }
        #expect(entries.allSatisfy { $0 & Self.swapped != 0 && $0 & Self.present == 0 }, "\(entries)")
        #expect(guest.mapping.arePrivate(0..<8) == (0..<8).map { $0 < 4 })
        // Protected while they are in swap; never read while that holds.
        try guest.mapping.prepareWindow(4..<5)
        try guest.mapping.protect(0..<4)
        guest.mapping.release(0..<4, replaced: false)
        #expect(guest.mapping.arePrivate(0..<4) == [true, true, true, true])
        #expect((0..<8).map(guest.byte) == [40, 41, 42, 43, 3, 3, 3, 3])
        #expect(guest.mapping.arePrivate(0..<8) == (0..<8).map { $0 < 4 })
    }

    private static func run(_ program: String, _ argument: String) throws -> Int32 {
        let streams: [ChildProgram.Stream] = [.nothing, .nothing, .descriptor(2)]
        return try ChildProcess("/bin/busybox", [program, argument], streams: streams).wait()
    }
}
