import CBlake2
import CLinux
import Glibc
import GuestMemory

/// Digests of a guest's pages for the ideal of sharing: found and computed by code that shares nothing with the engine.
///
/// To be used while nobody writes guest memory. A page counts as allocated if the guest's memory file has data there, or
/// if something else than that file is mapped there, by the kernel's own lists.
enum ContentDigest {
    /// Bytes of a digest. All zero stands for a page of zeros.
    static let size = 16

    enum Kind {
        /// BLAKE2b-128, without a key.
        case blake2
        /// ``mingle_page_checksum``: for an emulated processor, which takes half a minute for BLAKE2b of a small guest.
        case checksum
    }

    /// The digests of all allocated pages, one behind the other, in order of page.
    /// - Parameter everyPage: a page that is not allocated has a digest, too: that of zeros.
    static func pages(of memory: GuestMemory, everyPage: Bool, kind: Kind) throws(LinuxError) -> [UInt8] {
        let count = Int(memory.sizeInBytes >> Page.shift)
        var allocated = [Bool](repeating: false, count: count)
        switch memory.backing {
        case .memoryFile:
            try markData(memory, &allocated)
            try markForeignMappings(memory, &allocated)
        case .anonymousMergeable: try markPresent(memory, &allocated)
        }
        var digests: [UInt8] = []
        let base = unsafe memory.mapping.base
        var digest = [UInt8](repeating: 0, count: size)
        for page in 0..<count where everyPage || allocated[page] {
            guard allocated[page] else {
                digests += [UInt8](repeating: 0, count: size)
                continue
            }
            // SAFETY: the page lies in the guest's mapping; nobody writes it now.
            let bytes = unsafe base + page * Int(Page.size)
            if unsafe mingle_page_is_uniform(bytes, 0) != 0 {
                digests += [UInt8](repeating: 0, count: size)
                continue
            }
            switch kind {
            case .checksum: unsafe mingle_page_checksum(bytes, &digest)
            case .blake2:
                guard unsafe blake2b(&digest, bytes, nil, size, Int(Page.size), 0) == 0 else {
                    throw LinuxError(operation: "blake2b", code: EINVAL)
                }
            }
            digests += digest
        }
        return digests
    }

    /// Anonymous memory: /proc/self/pagemap tells what is present (bit 63) or swapped out (bit 62).
    private static func markPresent(_ memory: GuestMemory, _ allocated: inout [Bool]) throws(LinuxError) {
        let map = try OwnedDescriptor.open("/proc/self/pagemap", flags: O_RDONLY)
        let start = unsafe UInt64(UInt(bitPattern: memory.mapping.base)) >> Page.shift
        let batch = 1 << 16
        for first in stride(from: 0, to: allocated.count, by: batch) {
            let count = min(batch, allocated.count - first)
            let bytes = try map.read(count: count * 8, at: (start + UInt64(first)) * 8)
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

    /// Lines of /proc/self/maps: `start-end permissions offset device inode path`.
    private static func markForeignMappings(_ memory: GuestMemory, _ allocated: inout [Bool])
        throws(LinuxError)
    {
        let start = unsafe UInt(bitPattern: memory.mapping.base)
        let end = start + UInt(memory.sizeInBytes)
        var status = stat()
        guard unsafe fstat(memory.file.number, &status) == 0 else { throw .current("fstat") }
        for line in try HostIO.lines("/proc/self/maps") {
            let fields = line.split(separator: " ", omittingEmptySubsequences: true)
            guard fields.count >= 5, let dash = fields[0].firstIndex(of: "-"),
                let first = UInt(fields[0][..<dash], radix: 16),
                let last = UInt(fields[0][fields[0].index(after: dash)...], radix: 16), first < end,
                last > start
            else { continue }
            if fields[4] == "\(status.st_ino)", fields[1].hasSuffix("s") { continue }
            let pages = Int(max(first, start) - start) / 4096..<Int(min(last, end) - start) / 4096
            for page in pages { allocated[page] = true }
        }
    }
}
