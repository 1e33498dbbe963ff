import CLinux
import Foundation
import GuestMemory
import LinuxHost
import TestSupport

/// Page frame numbers of other processes' memory: /proc/PID/pagemap, whose numbers only root sees.
enum FrameNumbers {
    /// The kernel's page of zeros; nil where numbers are hidden.
    static let zero: UInt64? = {
        guard let page = try? MemoryMapping.anonymous(sizeInBytes: 4096) else { return nil }
        // A read alone maps the page that all share.
        _ = mingle_load8(page.base)
        guard let map = try? OwnedDescriptor.open("/proc/self/pagemap", flags: O_RDONLY),
            let frame = try? read(map, UInt64(UInt(bitPattern: page.base)) >> 12, 1).first ?? nil
        else { return nil }
        return frame > 0 ? frame : nil
    }()

    /// The frame behind each page of a guest's memory, in order; nil where the VMM's page table has none.
    /// - Parameter process: the guest's VMM, with one page of the guest's own memory file mapped at least.
    static func ofGuest(_ name: String, process: Int32, pages: Int) throws -> [UInt64?] {
        let base = try self.base(name, process)
        let map = try OwnedDescriptor.open("/proc/\(process)/pagemap", flags: O_RDONLY)
        return try read(map, base >> 12, pages)
    }

    /// Where a guest's memory begins: every mapping of its file says so. Lines of /proc/PID/maps:
    /// `start-end permissions offset device inode path`.
    private static func base(_ name: String, _ process: Int32) throws -> UInt64 {
        let text = try String(contentsOfFile: "/proc/\(process)/maps", encoding: .utf8)
        var found: Set<UInt64> = []
        for line in text.split(separator: "\n") {
            let fields = line.split(separator: " ")
            guard fields.count > 5, fields[5] == "/memfd:mingle:\(name)",
                let end = fields[0].firstIndex(of: "-"),
                let start = UInt64(fields[0][..<end], radix: 16), let offset = UInt64(fields[2], radix: 16)
            else { continue }
            found.insert(start - offset)
        }
        guard found.count == 1, let base = found.first else {
            throw Failure("memory of guest \(name) begins at \(found)")
        }
        return base
    }

    /// Linux's Documentation/admin-guide/mm/pagemap.rst: bit 63 says present, bits 0 to 54 are the number.
    private static func read(_ map: borrowing OwnedDescriptor, _ page: UInt64, _ count: Int) throws
        -> [UInt64?]
    {
        var frames: [UInt64?] = []
        while frames.count < count {
            let part = min(count - frames.count, 1 << 15)
            let bytes = try map.read(count: part * 8, at: (page + UInt64(frames.count)) * 8)
            guard bytes.count == part * 8 else { throw Failure("pagemap ended early") }
            for start in stride(from: 0, to: bytes.count, by: 8) {
                var entry: UInt64 = 0
                for byte in (0..<8).reversed() { entry = entry << 8 | UInt64(bytes[start + byte]) }
                frames.append(entry >> 63 == 0 ? nil : entry & (1 << 55 - 1))
            }
        }
        return frames
    }
}
