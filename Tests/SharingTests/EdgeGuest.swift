@testable import FrameStore
import CLinux
import Foundation
import GuestMemory
import LinuxHost
import Testing

@testable import Sharing

/// A guest's memory with a store in a memory file, on the real kernel; threads stand in for vCPUs.
final class EdgeGuest: @unchecked Sendable {
    final class Store: @unchecked Sendable {
        let file: OwnedDescriptor
        init() throws {
            file = try .memoryFile(named: "edge-store")
            try file.truncate(to: 64 << 20)
        }
        func write(_ byte: UInt8, _ page: Int) { write([UInt8](repeating: byte, count: 4096), page) }
        func write(_ bytes: [UInt8], _ page: Int) {
            #expect(pwrite(file.number, bytes, 4096, page * 4096) == 4096)
        }
        func punch(_ page: Int) { #expect(mingle_punch_hole(file.number, UInt64(page) * 4096, 4096) == 0) }
        var blocks: Int { edgeBlocks(file.number) }
    }
    let memory: GuestMemory
    let mapping: LinuxGuestMapping
    let store: Store
    let staging: StagingArea
    /// Has its one page before memory gets scarce.
    private let looked: OwnedDescriptor

    init(pages: Int, store: Store? = nil, protects: Bool = true, calls: MappingCalls = .kernel) throws {
        staging = try StagingArea()
        memory = try GuestMemory(
            sizeInBytes: UInt64(pages) * 4096, lowLimit: GuestAddress(1 << 30),
            highStart: GuestAddress(4 << 30))
        looked = try .memoryFile(named: "edge-look")
        #expect(pwrite(looked.number, [UInt8](repeating: 0, count: 4096), 4096, 0) == 4096)
        mapping = try LinuxGuestMapping(
            memory: memory, userFault: protects ? UserFault.open() : nil, calls: calls)
        self.store = try store ?? Store()
        let hasher = try #require(PageHasher(secret: [UInt8](repeating: 7, count: PageHasher.secretSize)))
        mapping.connect(
            StoreConnection(
                fileNumber: self.store.file.number, owner: self.store, hasher: hasher,
                staging: staging))
    }

    func word(_ page: Int, _ index: Int) -> UnsafeMutablePointer<UInt64> {
        (memory.mapping.base + page * 4096 + index * 8).assumingMemoryBound(to: UInt64.self)
    }
    func byte(_ page: Int) -> UInt8 { mingle_load8(memory.mapping.base + page * 4096) }
    func fill(_ page: Int, _ byte: UInt8) { memset(memory.mapping.base + page * 4096, Int32(byte), 4096) }
    /// What anybody reads of a page, nil where nothing can be accessed.
    func bytes(_ page: Int) throws -> [UInt8]? {
        // By the kernel: an address without memory is an error here, not the end of the process.
        guard pwrite(looked.number, memory.mapping.base + page * 4096, 4096, 0) == 4096 else { return nil }
        return try looked.read(count: 4096, at: 0)
    }
    var homeBlocks: Int { edgeBlocks(memory.file.number) }

    func window(_ pages: Range<Int>, _ body: () throws -> Bool) throws {
        try mapping.prepareWindow(pages)
        try mapping.protect(pages)
        mapping.release(pages, replaced: try body())
    }

    /// VmFlags of each mapping that has part of a range (Linux's Documentation/filesystems/proc.rst).
    func flags(_ pages: Range<Int>) throws -> [[Substring]] {
        let start = UInt64(UInt(bitPattern: memory.mapping.base)) + UInt64(pages.lowerBound * 4096)
        let end = start + UInt64(pages.count * 4096)
        var found: [[Substring]] = []
        MappingUse.forEach(try #require(SystemCall.text(of: "/proc/self/smaps", limit: 1 << 24))) {
            if $0.start < end && $0.end > start { found.append($0.flags) }
        }
        return found
    }

    func frameNumber(_ page: Int) throws -> UInt64 {
        let map = try OwnedDescriptor.open("/proc/self/pagemap", flags: O_RDONLY)
        let address = UInt64(UInt(bitPattern: memory.mapping.base)) + UInt64(page) * 4096
        let entry = try map.read(count: 8, at: address >> 12 * 8)
        return entry.reversed().reduce(0) { $0 << 8 | UInt64($1) } & ((1 << 55) - 1)
    }
}

func edgeBlocks(_ descriptor: Int32) -> Int {
    var status = stat()
    fstat(descriptor, &status)
    return status.st_blocks
}
