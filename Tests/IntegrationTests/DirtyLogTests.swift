import Foundation
import GuestMemory
import LinuxHost
import Testing

@testable import Hypervisor

extension HostKVM {
    /// The expectation, exactly: of the pages from `freeStart` on, those that the guest wrote and no others. Below it
    /// lie the VMM's tables, the program and its stacks: only pages of theirs may be reported (some KVMs report a first
    /// read too), and the top of vCPU 0's stack must be, since that vCPU ran.
    @Suite("The dirty log")
    struct DirtyLogTests {
        @Test("exactly the pages written are reported", arguments: [DirtyLogMode.on, .manual], [1, 3])
        func written(mode: DirtyLogMode, stride: Int) throws {
            let guest = try TestGuest("hello", "do=write pages=200 stride=\(stride)", dirtyLog: mode)
            try guest.start()
            try guest.doorbell(2)
            let first = try Int(guest.freeStart >> 12)
            let expected = Set((0..<200).map { first + $0 * stride })
            let dirty = try guest.harvest()
            #expect(dirty.filter { $0 >= first } == expected)
            #expect(dirty.contains(first - 1), "the top page of the only stack")
            #expect(dirty.allSatisfy { $0 >= 1 })
            if mode == .on {
                #expect(try guest.harvest().filter { $0 >= first }.isEmpty)
            } else {
                #expect(try guest.harvest().filter { $0 >= first } == expected)
                // Clear every second one: the others stay.
                let half = Set(expected.filter { ($0 - first) / stride % 2 == 0 })
                try guest.clear(half)
                #expect(try guest.harvest().filter { $0 >= first } == expected.subtracting(half))
                try guest.clear(expected)
                #expect(try guest.harvest().filter { $0 >= first }.isEmpty)
            }
        }

        @Test("a log that begins later costs nothing before, and misses nothing after")
        func begunLater() throws {
            let guest = try TestGuest(
                "fill", "pages=400 unique=1 layout=scattered", dirtyLog: .manual, beginsLater: true)
            try guest.start()
            try guest.doorbell(1)
            #expect(throws: LinuxError.self, "there is no log yet") { try guest.harvest() }
            try guest.machine.beginLogging()
            let first = try Int(guest.freeStart >> 12)
            let all = Set(first..<first + 400)
            let dirty = try guest.harvest()
            #expect(dirty.isSuperset(of: all), "what was written before is not known: anything may have been")
            try guest.clear(dirty)
            let before = try guest.contents(all)
            guest.send("rewrite 0.25")
            try guest.line("rewrite ok pages=100 round=1")
            let written = try guest.harvest().filter { $0 >= first }
            let after = try guest.contents(all)
            #expect(written == all.filter { before[$0] != after[$0] } && written.count == 100)
        }

        @Test("a page is reported again after the next write", arguments: [DirtyLogMode.on, .manual])
        func rewritten(mode: DirtyLogMode) throws {
            let guest = try TestGuest(
                "fill", "pages=400 unique=1 layout=scattered", processors: 2, dirtyLog: mode)
            try guest.start()
            try guest.doorbell(1)
            let first = try Int(guest.freeStart >> 12)
            let all = Set(first..<first + 400)
            var dirty = try guest.harvest()
            #expect(dirty.filter { $0 >= first } == all)
            try guest.clear(dirty)
            for round in 1...4 {
                let before = try guest.contents(all)
                guest.send("rewrite 0.25")
                try guest.line("rewrite ok pages=100 round=\(round)")
                dirty = try guest.harvest()
                try guest.clear(dirty)
                let after = try guest.contents(all)
                let changed = all.filter { before[$0] != after[$0] }
                #expect(changed.count == 100)
                #expect(dirty.filter { $0 >= first } == changed)
            }
            guest.send("check")
            try guest.line("check ok pages=400")
        }

        @Test("the VMM's own writes are in its bitmap, and in no log", arguments: [DirtyLogMode.on, .manual])
        func ownWrites(mode: DirtyLogMode) throws {
            let guest = try TestGuest("hello", "do=write pages=8 stride=1", dirtyLog: mode)
            try guest.start()
            try guest.doorbell(2)
            let memory = guest.machine.memory
            let first = try Int(guest.freeStart >> 12)
            try guest.clear(try guest.harvest())
            var own = [UInt64](repeating: 0, count: memory.dirtyBitmap.pageCount / 64)
            memory.dirtyBitmap.harvest(into: &own)
            #expect(
                pages(own).contains(1) && !pages(own).contains(first), "boot information, but no free page")
            // Pages that the guest wrote, and others; one write over a page boundary.
            try memory.write([1, 2, 3], at: GuestAddress(UInt64(first) << 12 + 100))
            try memory.write(
                [UInt8](repeating: 7, count: 5000), at: GuestAddress(UInt64(first + 20) << 12 + 4000))
            #expect(try guest.harvest().filter { $0 >= first }.isEmpty)
            own = [UInt64](repeating: 0, count: own.count)
            memory.dirtyBitmap.harvest(into: &own)
            #expect(pages(own) == [first, first + 20, first + 21, first + 22])
        }

        @Test("around the hole below 4 GiB", arguments: [DirtyLogMode.on, .manual])
        func aroundHole(mode: DirtyLogMode) throws {
            let size: UInt64 = 3 << 30 + 64 << 20
            let freeStart = try TestGuest("hello").freeStart
            let freeCount = (size - freeStart) >> 12
            // The last low page is the free page number (3 GiB - freeStart) / 4096 - 1.
            let lastLow = ((3 << 30 as UInt64) - freeStart) >> 12 - 1
            for stride in [lastLow, lastLow + 1, freeCount - 1] {
                let guest = try TestGuest(
                    "hello", "do=write pages=2 stride=\(stride)", memory: size, dirtyLog: mode)
                try guest.start()
                try guest.doorbell(2)
                let first = try Int(guest.freeStart >> 12)
                let dirty = try guest.harvest().filter { $0 >= first }
                #expect(dirty == [first, first + Int(stride)], "stride \(stride)")
            }
        }

        @Test(
            "where memory lies",
            arguments: [
                3 << 30 - 4096, 3 << 30, 3 << 30 + 4096, 4 << 30, 5 << 30, 16 << 20,
            ] as [UInt64])
        func sizes(memory: UInt64) throws {
            let hole: UInt64 = 3 << 30
            let freeCount = (memory - (try TestGuest("hello").freeStart)) >> 12
            let guest = try TestGuest("hello", "do=write pages=2 stride=\(freeCount - 1)", memory: memory)
            #expect(try guest.information(at: 16) == memory)
            #expect(try guest.information(at: 24) == min(memory, hole))
            #expect(try guest.information(at: 32) == (memory > hole ? 4 << 30 : 0))
            #expect(try guest.information(at: 40) == (memory > hole ? 1 << 30 + memory : 0))
            try guest.start()
            try guest.doorbell(2)
            let last = memory > hole ? memory + 1 << 30 - 4096 : memory - 4096
            try guest.line("last=0x\(String(last, radix: 16))")
            #expect(try guest.machine.memory.load(UInt8.self, at: GuestAddress(last)) == 1)
        }
    }
}

private func pages(_ bitmap: [UInt64]) -> Set<Int> {
    var pages: Set<Int> = []
    for (index, word) in bitmap.enumerated() where word != 0 {
        for bit in 0..<64 where word & 1 << UInt64(bit) != 0 { pages.insert(index * 64 + bit) }
    }
    return pages
}

extension TestGuest {
    private var wordCount: Int { Int(machine.memory.sizeInBytes >> 12 + 63) / 64 }

    /// Pages that KVM reports, by their place in the memory file.
    fileprivate func harvest() throws -> Set<Int> {
        var bitmap = [UInt64](repeating: 0, count: wordCount)
        try machine.harvestDirtyPages(into: &bitmap)
        return pages(bitmap)
    }

    fileprivate func clear(_ pages: Set<Int>) throws {
        var bitmap = [UInt64](repeating: 0, count: wordCount)
        for page in pages { bitmap[page / 64] |= 1 << UInt64(page % 64) }
        try machine.clearDirtyPages(bitmap)
    }

    fileprivate func contents(_ pages: Set<Int>) throws -> [Int: [UInt8]] {
        var contents: [Int: [UInt8]] = [:]
        for page in pages {
            contents[page] = try machine.memory.read(GuestAddress(UInt64(page) << 12), count: 4096)
        }
        return contents
    }
}
