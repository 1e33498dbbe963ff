import CBlake2
import CLinux
import Glibc
import GuestMemory
import LinuxHost
import VMMProtocol

/// Digests of a guest's pages for the ideal of sharing: found and computed by code that shares nothing with the engine.
///
/// To be used while nobody writes guest memory. A page counts as allocated if the guest's memory file has data there, or
/// if something else than that file is mapped there, by the kernel's own lists.
final class ContentDigest {
    enum Kind {
        /// BLAKE2b-128, without a key.
        case blake2
        /// ``mingle_page_checksum``: for an emulated processor, which takes half a minute for BLAKE2b of a small guest.
        case checksum
    }

    private let maps: ProcessMaps
    private let pageMap: OwnedDescriptor

    /// Opens what it reads later.
    init() throws(LinuxError) {
        maps = try ProcessMaps()
        pageMap = try .open("/proc/self/pagemap", flags: O_RDONLY)
    }

    /// The digests of all allocated pages, one behind the other, in order of page.
    /// - Parameter everyPage: a page that is not allocated has a digest, too: that of zeros.
    func pages(of memory: GuestMemory, everyPage: Bool, kind: Kind) throws(LinuxError) -> [UInt8] {
        let count = Int(memory.sizeInBytes >> Page.shift)
        // The list of digests, one for each page at most, and while it grows; a mark for each page.
        guard HeapReserve.has(count * (PageDigests.size + 1) + HeapReserve.size / 2) else {
            throw LinuxError(operation: "malloc", code: ENOMEM, subject: "digests of \(count) pages")
        }
        defer { HeapReserve.giveBack() }
        var allocated = [Bool](repeating: false, count: count)
        switch memory.backing {
        case .memoryFile:
            try Self.markData(memory, &allocated)
            try markForeignMappings(memory, &allocated)
        case .anonymousMergeable: try markPresent(memory, &allocated)
        }
        var digests: [UInt8] = []
        digests.reserveCapacity((everyPage ? count : allocated.count { $0 }) * PageDigests.size)
        let base = unsafe memory.mapping.base
        var digest = [UInt8](repeating: 0, count: PageDigests.size)
        for page in 0..<count where everyPage || allocated[page] {
            guard allocated[page] else {
                digests += [UInt8](repeating: 0, count: PageDigests.size)
                continue
            }
            // SAFETY: the page lies in the guest's mapping; nobody writes it now.
            let bytes = unsafe base + page * Int(Page.size)
            if unsafe mingle_page_is_uniform(bytes, 0) != 0 {
                digests += [UInt8](repeating: 0, count: PageDigests.size)
                continue
            }
            switch kind {
            case .checksum: unsafe mingle_page_checksum(bytes, &digest)
            case .blake2:
                guard unsafe blake2b(&digest, bytes, nil, PageDigests.size, Int(Page.size), 0) == 0 else {
                    throw LinuxError(operation: "blake2b", code: EINVAL)
                }
            }
            digests += digest
        }
        return digests
    }

    /// Anonymous memory: /proc/self/pagemap tells what is present (bit 63) or swapped out (bit 62).
    private func markPresent(_ memory: GuestMemory, _ allocated: inout [Bool]) throws(LinuxError) {
        let start = unsafe UInt64(UInt(bitPattern: memory.mapping.base)) >> Page.shift
        let batch = 1 << 16
        for first in stride(from: 0, to: allocated.count, by: batch) {
            let count = min(batch, allocated.count - first)
            let bytes = try pageMap.read(count: count * 8, at: (start + UInt64(first)) * 8)
            guard bytes.count == count * 8 else {
                throw LinuxError(operation: "read", code: EIO, subject: "/proc/self/pagemap")
            }
            for page in 0..<count where bytes[page * 8 + 7] & 0xc0 != 0 { allocated[first + page] = true }
        }
    }

    private static func markData(_ memory: GuestMemory, _ allocated: inout [Bool]) throws(LinuxError) {
        let file = memory.file.number
        let (seekData, seekHole): (Int32, Int32) = (3, 4)
        var position = 0
        while position < Int(memory.sizeInBytes) {
            let data = lseek(file, position, seekData)
            if data < 0, errno == ENXIO { return }
            guard data >= 0 else { throw .current("lseek", "guest RAM") }
            let hole = lseek(file, data, seekHole)
            guard hole > data else { throw .current("lseek", "guest RAM") }
            for page in data / 4096..<(hole + 4095) / 4096 { allocated[page] = true }
            position = hole
        }
    }

    private func markForeignMappings(_ memory: GuestMemory, _ allocated: inout [Bool]) throws(LinuxError) {
        let start = unsafe UInt(bitPattern: memory.mapping.base)
        let end = start + UInt(memory.sizeInBytes)
        var status = stat()
        guard unsafe mingle_fstat(memory.file.number, &status) == 0 else { throw .current("fstat") }
        try maps.forEach { entry in
            guard entry.start < end, entry.end > start else { return }
            if entry.inode == UInt64(status.st_ino), entry.isShared { return }
            let pages =
                Int(max(entry.start, start) - start) / 4096..<Int(min(entry.end, end) - start) / 4096
            for page in pages { allocated[page] = true }
        }
    }
}
