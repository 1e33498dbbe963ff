import Foundation
import Synchronization
import TestSupport
import Testing

@testable import GuestMemory
@testable import LinuxHost

@Suite struct TransferTests {
    private func range(_ start: UInt64, _ size: UInt64) throws -> GuestRange {
        try #require(GuestRange(start: GuestAddress(start), sizeInBytes: size))
    }

    private func makeMemory(_ size: UInt64) throws -> GuestMemory {
        try GuestMemory(
            sizeInBytes: size, lowLimit: GuestAddress(32 * 4096), highStart: GuestAddress(1 << 32))
    }

    private func inFlight(_ memory: GuestMemory) -> [Int] {
        (0..<Int(memory.sizeInBytes >> 12)).filter { memory.inFlight.count($0) > 0 }
    }
    private func dirty(_ memory: GuestMemory) -> [Int] {
        (0..<Int(memory.sizeInBytes >> 12)).filter { memory.dirtyBitmap.isMarked($0) }
    }

    @Test func pagesAreInFlightUntilItEndsAndDirtyFromThenOn() throws {
        let memory = try makeMemory(64 * 4096)
        let ranges = [
            try range(2 * 4096 + 4095, 2), try range(0, 0), try range(9 * 4096, 4096),
            try range(1 << 32, 1),
        ]
        do {
            let transfer = try memory.beginTransfer(to: ranges)
            #expect(transfer.count == 4099)
            #expect(inFlight(memory) == [2, 3, 9, 32], "the first page above 4 GiB is page 32")
            #expect(dirty(memory).isEmpty)
            transfer.write([7], at: 4098)
        }
        #expect(inFlight(memory).isEmpty)
        #expect(dirty(memory) == [2, 3, 9, 32])
        #expect(try memory.load(UInt8.self, at: GuestAddress(1 << 32)) == 7)
    }

    /// Two transfers to the same page: it is in flight until the second has ended.
    @Test func transfersMeetOnAPage() throws {
        let memory = try makeMemory(4 * 4096)
        let second: Transfer
        do {
            let first = try memory.beginTransfer(to: [range(0, 4096), range(0, 10)])
            second = try memory.beginTransfer(to: [range(4000, 200)])
            #expect(memory.inFlight.count(0) == 3)
            first.write([1], at: 0)
        }
        #expect(memory.inFlight.count(0) == 1 && memory.inFlight.count(1) == 1)
        let thread = try end(second)
        thread.join()
        #expect(inFlight(memory).isEmpty)
    }

    /// Hands it to another thread, where it ends.
    private func end(_ transfer: consuming Transfer) throws -> HostThread {
        let box = Mutex<Transfer?>(transfer)
        let holder = Holder(box)
        return try HostThread(name: "worker") { holder.finish() }
    }
    private final class Holder: Sendable {
        private let held: Mutex<Transfer?>
        init(_ held: consuming Mutex<Transfer?>) { self.held = held }
        func finish() {
            let transfer = held.withLock { $0.take() }
            transfer?.write([3], at: 199)
        }
    }

    @Test func aRangeThatIsNotAllRAMLeavesNothingInFlight() throws {
        let memory = try makeMemory(4 * 4096)
        for bad in [try range(4 * 4096 - 1, 2), try range(1 << 40, 1), try range(UInt64.max - 1, 1)] {
            #expect(throws: GuestMemoryError.outOfRange(bad.start, count: bad.sizeInBytes)) {
                let good = try range(0, 4096)
                _ = try memory.beginTransfer(to: [good, bad])
            }
        }
        #expect(inFlight(memory).isEmpty && dirty(memory).isEmpty)
    }

    /// Against plain arrays: bytes written and read through random segments lie where the segments say.
    @Test func bytesGoWhereTheSegmentsSay() throws {
        var random = SeededGenerator(for: "transfers")
        let pages = 48
        let memory = try makeMemory(UInt64(pages) * 4096)
        var model = [UInt8](repeating: 0, count: pages * 4096)
        let directory = try TemporaryDirectory()
        let content = (0..<40_000).map { _ in random.byte() }
        let file = try OwnedDescriptor.open(directory.write("file", content), flags: O_RDONLY)
        for _ in 0..<200 {
            var ranges: [GuestRange] = []
            var places: [Int] = []
            for _ in 0..<Int.random(in: 0...6, using: &random) {
                let low = Bool.random(using: &random)
                let size = Int.random(in: 0...5000, using: &random)
                let limit = (low ? 32 : 16) * 4096 - size
                let start = Int.random(in: 0...limit, using: &random)
                ranges.append(try range(UInt64(start) + (low ? 0 : 1 << 32), UInt64(size)))
                places += (start..<start + size).map { low ? $0 : $0 + 32 * 4096 }
            }
            let transfer = try memory.beginTransfer(to: ranges)
            #expect(transfer.count == places.count)
            let from = Int.random(in: 0...places.count, using: &random)
            let to = Int.random(in: from...places.count, using: &random)
            if Bool.random(using: &random) {
                let bytes = (from..<to).map { _ in random.byte() }
                transfer.write(bytes, at: from)
                for (place, byte) in zip(places[from..<to], bytes) { model[place] = byte }
            } else {
                let offset = Int.random(in: 0...content.count, using: &random)
                let got = try transfer.read(from: file, at: UInt64(offset), into: from..<to)
                #expect(got == min(to - from, content.count - offset))
                for index in 0..<got { model[places[from + index]] = content[offset + index] }
            }
        }
        #expect(try memory.read(GuestAddress(0), count: 32 * 4096) == Array(model[..<(32 * 4096)]))
        #expect(try memory.read(GuestAddress(1 << 32), count: 16 * 4096) == Array(model[(32 * 4096)...]))
        #expect(inFlight(memory).isEmpty)
    }

    @Test func aReadThatFailsSaysWhy() throws {
        let memory = try makeMemory(4 * 4096)
        let transfer = try memory.beginTransfer(to: [range(0, 4), range(4096, 4)])
        let closed = OwnedDescriptor(adopting: -1)
        #expect(throws: LinuxError(operation: "pread", code: EBADF)) {
            _ = try transfer.read(from: closed, at: 0)
        }
        #expect(throws: LinuxError(operation: "preadv", code: EINVAL)) {
            _ = try transfer.read(from: closed, at: UInt64(Int64.max))
        }
    }

    @Test func indicesAreReadAndWrittenWhole() throws {
        let memory = try makeMemory(4 * 4096)
        try memory.storeReleasing(0xBEEF, at: GuestAddress(4096))
        #expect(try memory.read(GuestAddress(4096), count: 2) == [0xEF, 0xBE])
        #expect(try memory.loadAcquiring(at: GuestAddress(4096)) == 0xBEEF)
        #expect(memory.dirtyBitmap.isMarked(1) && inFlight(memory).isEmpty)
        #expect(throws: GuestMemoryError.misaligned(GuestAddress(3), alignment: 2)) {
            try memory.loadAcquiring(at: GuestAddress(3))
        }
        #expect(throws: GuestMemoryError.misaligned(GuestAddress(3), alignment: 2)) {
            try memory.storeReleasing(1, at: GuestAddress(3))
        }
        #expect(throws: GuestMemoryError.outOfRange(GuestAddress(4 * 4096), count: 2)) {
            try memory.loadAcquiring(at: GuestAddress(4 * 4096))
        }
    }

    /// A driver that publishes numbers under an index, one at a time, and a device that answers in the same way.
    @Test func whoSeesTheIndexSeesWhatWasWrittenBefore() throws {
        let memory = try makeMemory(2 * 4096)
        let (index, number, answer) = (GuestAddress(4096), GuestAddress(4096 + 64), GuestAddress(4096 + 128))
        let count: UInt16 = 3000
        let driver = try HostThread(name: "driver") {
            for turn in 1...count {
                try? memory.store(UInt64(turn) &* 0x0101_0101_0101_0101, at: number)
                try? memory.storeReleasing(turn, at: index)
                while (try? memory.loadAcquiring(at: answer)) != turn { sched_yield() }
            }
        }
        try withWatchdog(seconds: 60, "a device's turns") {
            for turn in 1...count {
                while try memory.loadAcquiring(at: index) != turn { sched_yield() }
                #expect(try memory.load(UInt64.self, at: number) == UInt64(turn) &* 0x0101_0101_0101_0101)
                try memory.storeReleasing(turn, at: answer)
            }
        }
        driver.join()
    }
}
