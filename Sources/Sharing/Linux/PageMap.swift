internal import CLinux
internal import GuestMemory
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

    init() throws(LinuxError) { descriptor = try .open("/proc/self/pagemap", flags: O_RDONLY) }

    /// Whether the pages from an address on are private copies: anonymous memory of ours alone, or swapped out. Two looks
    /// deceive: a zero page that was merely read is present and not of a file, but not exclusive; and the marker that
    /// write protection leaves on a page never touched looks swapped out.
    func arePrivate(_ start: UInt, count: Int) -> [Bool] {
        guard let bytes = try? descriptor.read(count: count * 8, at: UInt64(start) >> Page.shift * 8),
            bytes.count == count * 8
        else { return [Bool](repeating: false, count: count) }
        return (0..<count).map { index in
            var entry: UInt64 = 0
            for byte in (0..<8).reversed() { entry = entry << 8 | UInt64(bytes[index * 8 + byte]) }
            return Self.isPrivate(entry)
        }
    }

    /// Adds to `found` the pages that are private; allocates nothing.
    /// - Returns: false when the map could not be read.
    func addPrivate(_ start: UInt, to found: inout [Bool]) -> Bool {
        var entries: (UInt64, UInt64, UInt64, UInt64, UInt64, UInt64, UInt64, UInt64) = (
            0, 0, 0, 0, 0, 0, 0, 0
        )
        var index = 0
        while index < found.count {
            let some = min(8, found.count - index)
            // SAFETY: reads at most the 64 bytes of a live local.
            let got = unsafe withUnsafeMutableBytes(of: &entries) { bytes in
                unsafe pread(
                    descriptor.number, bytes.baseAddress, some * 8,
                    Int(UInt64(start) >> Page.shift * 8) + index * 8)
            }
            guard got == some * 8 else { return false }
            // SAFETY: as many entries as were read.
            unsafe withUnsafeBytes(of: &entries) { bytes in
                for entry in 0..<some
                where unsafe Self.isPrivate(bytes.load(fromByteOffset: entry * 8, as: UInt64.self)) {
                    found[index + entry] = true
                }
            }
            index += some
        }
        return true
    }

    static func isPrivate(_ entry: UInt64) -> Bool {
        if entry & Bit.file != 0 { return false }
        if entry & Bit.present != 0 { return entry & Bit.exclusive != 0 }
        return entry & Bit.swapped != 0 && entry & Bit.writeProtectedByUserFault == 0
    }
}
