@testable import FrameStore
import CLinux
import Foundation
import GuestMemory
import LinuxHost
import Synchronization
import TestSupport
import Testing

@testable import Sharing

/// What `LinuxGuestMapping` relies on, on this kernel, without KVM.
@Suite(.serialized) struct LinuxEdgeTests {
    /// Two threads count in words of their own; the pages are merged with a copy of themselves all the time.
    /// - Returns: writes lost, writes, merges.
    private func stress(seconds: Double, protects: Bool) throws -> (lost: Int, writes: Int, merges: Int) {
        let pages = 8
        let guest = try EdgeGuest(pages: pages)
        let stop = Atomic(false)
        let lost = Atomic(0)
        let writes = Atomic(0)
        let group = DispatchGroup()
        for writer in 0..<2 {
            group.enter()
            Thread.detachNewThread {
                var expected = [UInt64](repeating: 0, count: pages)
                var count = 0
                while !stop.load(ordering: .relaxed) {
                    for page in 0..<pages {
                        let word = guest.word(page, 8 + writer * 256)
                        let now = mingle_load64(word)
                        if now != expected[page] { lost.add(1, ordering: .relaxed) }
                        expected[page] = now + 1
                        mingle_store64(word, now + 1)
                        count += 1
                    }
                    // Between bursts there are merges, and a burst that begins in a window hits it.
                    if count % 64 == 0 { usleep(UInt32(count / 64 % 50)) }
                }
                writes.add(count, ordering: .relaxed)
                group.leave()
            }
        }
        let end = monotonicNanoseconds() + UInt64(seconds * 1e9)
        var merges = 0
        var side = [Int](repeating: 0, count: pages)
        var page = 0
        while monotonicNanoseconds() < end {
            page = (page + 1) % pages
            let place = page * 2 + side[page]
            guest.store.punch(place)
            let pointer = guest.memory.mapping.base + page * 4096
            #expect(pwrite(guest.store.file.number, pointer, 4096, place * 4096) == 4096)
            let location = FrameLocation(UInt64(place))
            guest.mapping.endView()
            #expect(guest.mapping.view(location, count: 1))
            let range = page..<page + 1
            try guest.mapping.prepareWindow(range)
            if protects { try guest.mapping.protect(range) }
            let isEqual = guest.mapping.equals(page, location)
            if isEqual {
                try guest.mapping.mapFrames(range, location)
                merges += 1
                side[page] ^= 1
            }
            guest.mapping.release(range, replaced: isEqual)
        }
        stop.store(true, ordering: .relaxed)
        group.wait()
        return (lost.load(ordering: .relaxed), writes.load(ordering: .relaxed), merges)
    }

    @Test(.needs(.userfaultfd))
    func noWriteIsLost() throws {
        let seconds = Double(environmentNumber("MINGLE_STRESS_SECONDS") ?? 10)
        let result = try withWatchdog(seconds: seconds + 60, "merging under writers") {
            try stress(seconds: seconds, protects: true)
        }
        print("edge stress: \(result)")
        #expect(result.lost == 0)
        // The lab's processor is emulated.
        #expect(result.merges > (EdgeNeed.isLab ? 10 : 100))
    }

    @Test(.needs(.userfaultfd))
    func withoutProtectionWritesAreLost() throws {
        var result = (lost: 0, writes: 0, merges: 0)
        for _ in 0..<5 where result.lost == 0 { result = try stress(seconds: 2, protects: false) }
        print("edge stress without protection: \(result)")
        #expect(result.lost > 0)
    }

    @Test(.needs(.userfaultfd))
    func keptPagesNeverShowTheStore() throws {
        let guest = try EdgeGuest(pages: 8)
        for page in 0..<32 { guest.store.write(0x33, page) }
        for page in 0..<8 { guest.fill(page, page == 4 ? 0x22 : 0x33) }
        let stop = Atomic(false)
        let wrong = Atomic(0)
        let group = DispatchGroup()
        group.enter()
        Thread.detachNewThread {
            while !stop.load(ordering: .relaxed) {
                if guest.byte(4) != 0x22 { wrong.add(1, ordering: .relaxed) }
            }
            group.leave()
        }
        for round in 0..<(EdgeNeed.isLab ? 300 : 3000) {
            try guest.window(0..<8) {
                try guest.mapping.mapFrames(0..<8, FrameLocation(UInt64(round % 3 * 8)), keeping: [4])
            }
        }
        stop.store(true, ordering: .relaxed)
        group.wait()
        #expect(wrong.load(ordering: .relaxed) == 0)
        #expect((0..<8).map(guest.byte) == [0x33, 0x33, 0x33, 0x33, 0x22, 0x33, 0x33, 0x33])
        #expect(guest.mapping.arePrivate(0..<8) == (0..<8).map { $0 == 4 })
    }

    @Test(.needs(.userfaultfd))
    func keptZerosOutliveTheFrameBelow() throws {
        let guest = try EdgeGuest(pages: 4)
        for page in 0..<4 { guest.store.write(0x11, page) }
        for page in 0..<4 where page != 2 { guest.fill(page, 0x11) }
        try guest.window(0..<4) { try guest.mapping.mapFrames(0..<4, FrameLocation(0), keeping: [2]) }
        guest.store.punch(2)
        guest.store.write(0x77, 2)
        #expect(guest.byte(2) == 0)
    }

    @Test(.needs(.userfaultfd))
    func deceptiveLooks() throws {
        let guest = try EdgeGuest(pages: 4)
        guest.store.write(0x11, 0)
        try guest.window(0..<1) {
            try guest.mapping.mapZero(0..<1)
            return true
        }
        try guest.window(1..<2) {
            try guest.mapping.mapFrames(1..<2, FrameLocation(0))
            return true
        }
        #expect(guest.byte(0) == 0)
        #expect(guest.mapping.arePrivate(0..<2) == [false, false])
        // Protected though never touched: the marker in the page table looks like a swapped page.
        let userFault = try #require(guest.mapping.userFault)
        let start = UInt(bitPattern: guest.memory.mapping.base) + 4096
        try userFault.protect(start, 4096, true)
        #expect(guest.mapping.arePrivate(1..<2) == [false])
        try userFault.protect(start, 4096, false)
        userFault.unregister(start, 4096)
        guest.fill(0, 1)
        guest.fill(1, 2)
        #expect(guest.mapping.arePrivate(0..<2) == [true, true])
    }

    @Test(.needs(.userfaultfd))
    func adviceStaysAcrossReplacements() throws {
        let guest = try EdgeGuest(pages: 32)
        for page in 0..<32 { guest.fill(page, UInt8(page + 1)) }
        for page in 0..<8 { guest.store.write(UInt8(page + 1), page) }
        try guest.mapping.mapFrames(0..<4, FrameLocation(0))
        try guest.window(8..<12) { try guest.mapping.mapFrames(8..<12, FrameLocation(0), keeping: [9]) }
        try guest.mapping.mapZero(16..<20)
        try guest.mapping.mapFrames(24..<28, FrameLocation(0))
        try guest.mapping.mapHome(24..<28)
        let flags = try guest.flags(0..<32)
        #expect(flags.count >= 5)
        for mapping in flags { #expect(mapping.contains("dc") && mapping.contains("dd"), "\(mapping)") }
        #expect(try guest.flags(16..<20).allSatisfy { $0.contains("nh") })
    }

    @Test func buffersThatRestCostNothing() throws {
        let guest = try EdgeGuest(pages: 8)
        let staging = guest.staging
        for round in 0..<2 {
            guest.fill(round, 0x5A)
            guest.mapping.stage(round, slot: 3)
            #expect(staging.read(slot: 3)?.allSatisfy { $0 == 0x5A } == true)
            #expect(edgeBlocks(staging.descriptor.number) > 0)
            guest.mapping.releaseBuffers()
            #expect(edgeBlocks(staging.descriptor.number) == 0)
            #expect(staging.read(slot: 3)?.allSatisfy { $0 == 0 } == true)
        }
        guest.store.write(0x77, 5)
        guest.fill(6, 0x77)
        #expect(guest.mapping.view(FrameLocation(5), count: 1))
        #expect(guest.mapping.equals(6, FrameLocation(5)))
        guest.mapping.releaseBuffers()
        #expect(!guest.mapping.equals(6, FrameLocation(5)))
    }

    @Test func homeKeepsBytesAndHolesCostNothing() throws {
        let guest = try EdgeGuest(pages: 16)
        guest.store.write(0x5A, 3)
        #expect(guest.mapping.view(FrameLocation(1000), count: 4))
        #expect(guest.store.blocks == 8)
        for page in 0..<4 { guest.fill(page, 0x5A) }
        let before = guest.homeBlocks
        for page in 0..<4 { try guest.mapping.mapFrames(page..<page + 1, FrameLocation(3)) }
        guest.mapping.punchHome(0..<4)
        #expect(guest.homeBlocks == before - 32)
        guest.fill(1, 0x66)
        try guest.mapping.mapZero(4..<6)
        try guest.mapping.mapHome(0..<6)
        #expect((0..<6).map(guest.byte) == [0x5A, 0x66, 0x5A, 0x5A, 0, 0])
        // What an earlier punch left behind must not come back as zero pages' content.
        guest.fill(8, 0x44)
        try guest.mapping.mapZero(8..<9)
        try guest.mapping.mapHome(8..<9)
        #expect(guest.byte(8) == 0)
    }

    @Test(.needs(.root))
    func guestsShareOneFrame() throws {
        let store = try EdgeGuest.Store()
        store.write(0x10, 9)
        let guests = try (0..<2).map { _ in try EdgeGuest(pages: 4, store: store) }
        for guest in guests {
            guest.fill(1, 0x10)
            try guest.mapping.mapFrames(1..<2, FrameLocation(9))
            #expect(guest.byte(1) == 0x10)
        }
        let number = try guests[0].frameNumber(1)
        #expect(number != 0)
        #expect(try guests[1].frameNumber(1) == number)
        guests[1].fill(1, 0x20)
        #expect(try guests[1].frameNumber(1) != number)
        #expect(guests[0].byte(1) == 0x10)
    }

    /// What arranging does: one mapping for all, frames where they are wanted, copies of what is the guest's own.
    @Test(.needs(.userfaultfd))
    func arrangedPagesKeepTheirBytesAndTakeNothingOfTheStore() throws {
        let guest = try EdgeGuest(pages: 8)
        guest.store.write(0x11, 2)
        guest.store.write(0x11, 4)
        for page in 2..<6 { guest.fill(page, UInt8(page)) }
        // Two pages map frames; one of them is written, which nobody is told.
        try guest.mapping.mapFrames(2..<3, FrameLocation(2))
        try guest.mapping.mapFrames(4..<5, FrameLocation(4))
        guest.fill(4, 0x44)
        let before = guest.store.blocks
        var keeping = [false, true, false, true]
        #expect(try guest.mapping.rearrange(2..<6, .frame(FrameLocation(2)), keeping: &keeping))
        #expect(keeping == [false, true, true, true])
        #expect((2..<6).map(guest.byte) == [0x11, 3, 0x44, 5])
        #expect(guest.store.blocks == before)
        #expect(guest.mapping.arePrivate(2..<6) == [false, true, true, true])
        #expect(try guest.flags(2..<6).count == 1)
        // And to zeros: what is not kept is zero, what is kept and zero takes no memory.
        guest.fill(3, 0)
        keeping = [true, true, true, true]
        #expect(try guest.mapping.rearrange(2..<6, .zero, keeping: &keeping))
        #expect((2..<6).map(guest.byte) == [0x11, 0, 0x44, 5])
        #expect(guest.mapping.arePrivate(2..<6) == [true, false, true, true])
    }

    /// The kernel leaves stretches apart that have private pages of their own each; what is mapped anew, it joins with its
    /// left neighbour, whatever is to its right.
    @Test(.needs(.userfaultfd))
    func piecesAreJoinedFromTheLeft() throws {
        let guest = try EdgeGuest(pages: 16)
        for page in 0..<16 { guest.store.write(0x11, page) }
        for page in 0..<16 { guest.fill(page, page % 2 == 0 ? 0x11 : UInt8(page)) }
        #expect(guest.mapping.mappingStarts(in: 0..<guest.mapping.pageCount) == [0])
        for start in stride(from: 0, to: 12, by: 4) {
            let pages = start..<start + 4
            try guest.window(pages) {
                try guest.mapping.mapFrames(
                    pages, FrameLocation(UInt64(start)), keeping: [start + 1, start + 3])
            }
        }
        #expect(guest.mapping.mappingStarts(in: 0..<guest.mapping.pageCount) == [0, 4, 8, 12])
        // Not where the pieces meet: what is left of a piece is joined with the next part.
        for pages in [4..<6, 6..<10, 10..<12] {
            var keeping = pages.map { $0 % 2 == 1 }
            #expect(
                try guest.mapping.rearrange(
                    pages, .frame(FrameLocation(UInt64(pages.lowerBound))), keeping: &keeping))
        }
        #expect(guest.mapping.mappingStarts(in: 0..<guest.mapping.pageCount) == [0, 12])
        for page in 0..<16 { #expect(guest.byte(page) == (page % 2 == 0 ? 0x11 : UInt8(page))) }
        // All of it can be protected, without another registration.
        try guest.window(0..<16) { false }
    }
}
