internal import CLinux
internal import GuestMemory
internal import LinuxHost
internal import Glibc

/// /proc/self/pagemap (Linux's Documentation/admin-guide/mm/pagemap.rst): an entry of 64 bits a page.
final class PageMap {
    private enum Bit {
        static let writeProtectedByUserFault: UInt64 = 1 << 57
        static let exclusive: UInt64 = 1 << 56
        static let file: UInt64 = 1 << 61
        static let swapped: UInt64 = 1 << 62
        static let present: UInt64 = 1 << 63
    }
    private let descriptor: OwnedDescriptor
    /// What is read at a time.
    private var entries = [UInt64](repeating: 0, count: 512)

    init() throws(LinuxError) { descriptor = try .open("/proc/self/pagemap", flags: O_RDONLY) }

    /// Whether the pages from an address on are private copies: anonymous memory of ours alone, or swapped out. Two looks
    /// deceive: a zero page that was merely read is present and not of a file, but not exclusive; and the marker that
    /// write protection leaves on a page never touched looks swapped out.
    func arePrivate(_ start: UInt, count: Int) -> [Bool] {
        var found = [Bool](repeating: false, count: count)
        return addPrivate(start, to: &found) ? found : [Bool](repeating: false, count: count)
    }

    /// Adds to `found` the pages that are private; allocates nothing.
    /// - Returns: false when the map could not be read.
    func addPrivate(_ start: UInt, to found: inout [Bool]) -> Bool {
        var index = 0
        while index < found.count {
            let some = min(entries.count, found.count - index)
            guard read(start, index, some) else { return false }
            for entry in 0..<some where Self.isPrivate(entries[entry]) { found[index + entry] = true }
            index += some
        }
        return true
    }

    /// What the page map says of some pages.
    /// - Parameter body: given the position of each page, and whether it is in the page table (or swapped out) and of a file.
    /// - Returns: false when the map could not be read, or `body` said so, which ends it.
    func look(_ start: UInt, count: Int, _ body: (_ index: Int, _ isThere: Bool, _ isOfFile: Bool) -> Bool)
        -> Bool
    {
        var index = 0
        while index < count {
            let some = min(entries.count, count - index)
            guard read(start, index, some) else { return false }
            for entry in 0..<some {
                let bits = entries[entry]
                let isThere = bits & (Bit.present | Bit.swapped) != 0
                guard body(index + entry, isThere, bits & Bit.file != 0) else { return false }
            }
            index += some
        }
        return true
    }

    private func read(_ start: UInt, _ index: Int, _ count: Int) -> Bool {
        // SAFETY: reads at most as much as the array holds, which is alive for the call.
        let got = unsafe entries.withUnsafeMutableBytes { bytes in
            unsafe pread(
                descriptor.number, bytes.baseAddress, count * 8,
                Int(UInt64(start) >> Page.shift * 8) + index * 8)
        }
        return got == count * 8
    }

    /// Whether a page is of a file, as far as the page table knows.
    func isOfFile(_ address: UInt) -> Bool {
        var bits: UInt64 = 0
        // SAFETY: eight bytes of a live local.
        let got = unsafe pread(descriptor.number, &bits, 8, Int(UInt64(address) >> Page.shift * 8))
        return got == 8 && bits & Bit.file != 0
    }

    static func isPrivate(_ entry: UInt64) -> Bool {
        if entry & Bit.file != 0 { return false }
        if entry & Bit.present != 0 { return entry & Bit.exclusive != 0 }
        return entry & Bit.swapped != 0 && entry & Bit.writeProtectedByUserFault == 0
    }
}
