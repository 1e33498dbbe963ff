import GuestMemory
import Testing

@testable import Hypervisor

/// Walks the tables as the processor does (Intel SDM vol. 3, 4.5).
private struct Walker {
    let memory: GuestMemory
    let root: GuestAddress

    /// Entries from the top level down to the one that maps the page; the last may be absent.
    func entries(for address: UInt64) throws -> [UInt64] {
        var (table, found) = (root.value, [UInt64]())
        for level in (0..<4).reversed() {
            let index = address >> UInt64(12 + 9 * level) & 511
            let entry = try memory.load(UInt64.self, at: GuestAddress(table + index * 8))
            found.append(entry)
            if entry & 1 == 0 || level == 0 || entry & 0x80 != 0 { break }
            table = entry & 0x000F_FFFF_FFFF_F000
        }
        return found
    }

    func translate(_ address: UInt64) throws -> UInt64? {
        let found = try entries(for: address)
        guard let last = found.last, last & 1 == 1 else { return nil }
        let pageSize: UInt64 = [3: 1 << 21, 4: 1 << 12][found.count] ?? 1 << 30
        return last & 0x000F_FFFF_FFFF_F000 & ~(pageSize - 1) | address & (pageSize - 1)
    }
}

@Suite struct PageTableTests {
    @Test(arguments: [
        2 * mib, 64 * mib, 3 * gib - 4096, 3 * gib, 3 * gib + 4096, 4 * gib, 5 * gib, 140 * gib,
    ])
    func userTablesMapAllRAM(size: UInt64) throws {
        let memory = try makeMemory(size)
        let walker = Walker(memory: memory, root: try PageTables(in: memory, forUserMode: true).root)
        let top = max(memory.regions.last?.range.end.value ?? 0, 4 * gib)
        let step = size > 8 * gib ? 2 * mib * 61 : 2 * mib
        var addresses = Array(stride(from: 2 * mib, to: top, by: Int(step)))
        addresses += stride(from: UInt64(4096), to: 2 * mib, by: 4096)
        for region in memory.regions {
            addresses += [region.range.start.value + 4096, region.range.end.value - 1]
        }
        addresses += [0xFEE0_0123, 4 * gib - 1, 0xD000_0000]
        var wrong = 0
        for address in addresses {
            let translated = try walker.translate(address)
            let entries = try walker.entries(for: address)
            // Present, writable, user, accessed; dirty too where a page is mapped; never no-execute.
            let bits =
                entries.allSatisfy { $0 & 0x27 == 0x27 && $0 >> 63 == 0 } && (entries.last ?? 0) & 0x40 != 0
            if translated != address || !bits { wrong += 1 }
        }
        #expect(wrong == 0, "of \(addresses.count)")
        #expect(try walker.translate(0) == nil)
        #expect(try walker.translate(4095) == nil)
        #expect(try walker.translate(4096) == 4096)
        #expect(try walker.translate((top + gib - 1) / gib * gib) == nil, "nothing behind the last GiB")
    }

    @Test(arguments: [64 * mib, 5 * gib, 200 * gib]) func kernelTablesMapTheLow4GiB(size: UInt64) throws {
        let memory = try makeMemory(size)
        let walker = Walker(memory: memory, root: try PageTables(in: memory, forUserMode: false).root)
        for address in stride(from: UInt64(0), to: 4 * gib, by: Int(2 * mib)) {
            let entries = try walker.entries(for: address)
            try #require(try walker.translate(address + 77) == address + 77)
            try #require(entries.count == 3 && entries.allSatisfy { $0 & 7 == 3 })
        }
        #expect(try walker.translate(4 * gib) == nil)
    }

    @Test func tablesStayInTheirArea() throws {
        let memory = try makeMemory(140 * gib)
        _ = try PageTables(in: memory, forUserMode: true)
        let dirty = (0..<0x110).filter { memory.dirtyBitmap.isMarked($0) }
        #expect(dirty == Array(0x10..<0xA0))
        let larger = try makeMemory(140 * gib + 4096)
        #expect(throws: HypervisorError.self) { _ = try PageTables(in: larger, forUserMode: true) }
        #expect(
            !(0..<0x110).contains { larger.dirtyBitmap.isMarked($0) }, "refused before anything was written")
    }
}
