internal import CLinux
package import LinuxHost

/// One stretch of guest RAM: where it is for the guest, and where in the memory file.
public struct MemoryRegion: Sendable, Equatable {
    /// GPA range, whole pages.
    public let range: GuestRange
    /// Offset of its first byte in the memory file and in the host mapping.
    public let fileOffset: UInt64
}

/// A guest's RAM: a memory file mapped once, shared, allocated on first use.
///
/// Every access by the VMM goes through here. A write counts its pages as in flight before, and marks them dirty after,
/// because KVM's dirty log does not see it. Guest bytes may change at any time: read what you act on once. Safe to use
/// from every thread.
public final class GuestMemory: Sendable {
    /// The most a guest may have: what fits between 4 GiB and the smallest physical address width in use (39 bits).
    public static let maximumSizeInBytes: UInt64 = 256 << 30

    /// What RAM is made of.
    public enum Backing: String, CaseIterable, Sendable {
        /// A memory file, shared: what this project's own sharing works on.
        case memoryFile = "memory-file"
        /// Private anonymous memory that the kernel's KSM may merge. The memory file stays empty.
        case anonymousMergeable = "anonymous-mergeable"
    }

    public let sizeInBytes: UInt64
    public let backing: Backing
    /// In order of address; whole pages; no overlap.
    public let regions: [MemoryRegion]
    /// Marks of the VMM's own writes, a bit for each page of the memory file.
    public let dirtyBitmap: DirtyBitmap
    /// Device writes on their way, for each page of the memory file.
    public let inFlight: InFlightCounts
    /// The memory file; nothing but this object may map, read or write it (see docs/design.md).
    package let file: OwnedDescriptor
    package let mapping: MemoryMapping

    /// Allocates RAM.
    /// - Parameters:
    ///   - sizeInBytes: a multiple of the page size.
    ///   - backing: see ``Backing``.
    ///   - lowLimit: where the hole below 4 GiB begins; what does not fit under it goes to `highStart`.
    public init(
        sizeInBytes: UInt64, lowLimit: GuestAddress, highStart: GuestAddress, name: String = "guest",
        backing: Backing = .memoryFile
    ) throws(GuestMemoryError) {
        guard sizeInBytes > 0, sizeInBytes <= Self.maximumSizeInBytes, Page.isAligned(sizeInBytes),
            let low = GuestRange(start: GuestAddress(0), sizeInBytes: min(sizeInBytes, lowLimit.value)),
            let high = GuestRange(start: highStart, sizeInBytes: sizeInBytes - low.sizeInBytes)
        else { throw .invalidSize(bytes: sizeInBytes) }
        self.sizeInBytes = sizeInBytes
        self.backing = backing
        var regions = [MemoryRegion(range: low, fileOffset: 0)]
        if high.sizeInBytes > 0 { regions.append(MemoryRegion(range: high, fileOffset: low.sizeInBytes)) }
        self.regions = regions
        do throws(LinuxError) {
            file = try .memoryFile(named: "mingle:\(name)")
            try file.truncate(to: sizeInBytes)
            mapping =
                switch backing {
                case .memoryFile: try .guestMemory(of: file, sizeInBytes: sizeInBytes)
                case .anonymousMergeable: try .mergeableGuestMemory(sizeInBytes: sizeInBytes)
                }
            dirtyBitmap = try DirtyBitmap(pageCount: Int(sizeInBytes >> Page.shift))
            inFlight = try InFlightCounts(pageCount: Int(sizeInBytes >> Page.shift))
        } catch { throw .system(error) }
    }

    /// Bytes of host memory that the memory file takes now; 0 with anonymous backing.
    public var allocatedBytes: UInt64 { file.allocatedBytes() }

    /// Gives all of it back to the host, when the guest has ended and nobody remaps it any more; it reads as zeros.
    public func discard() {
        mapping.discard()
        _ = mingle_punch_hole(file.number, 0, sizeInBytes)
    }

    /// Where `count` bytes at `address` lie in the memory file, or an error when they are not all RAM of one region.
    func offset(of address: GuestAddress, count: UInt64) throws(GuestMemoryError) -> Int {
        for region in regions where region.range.start <= address && address < region.range.end {
            if count <= region.range.end.value - address.value {
                return Int(region.fileOffset + (address.value - region.range.start.value))
            }
        }
        throw .outOfRange(address, count: count)
    }

    /// Whether all of a range is RAM.
    public func isRAM(_ range: GuestRange) -> Bool {
        regions.contains { $0.range.contains(range) }
    }

    /// The index of a frame in bitmaps and counts (its page in the memory file), or nil when it is not RAM.
    public func pageIndex(of frame: GuestFrameNumber) -> Int? {
        guard frame.value <= UInt64.max >> Page.shift,
            let offset = try? offset(of: frame.address, count: Page.size)
        else { return nil }
        return offset >> Int(Page.shift)
    }

    /// Host address (HVA) of a region's first byte, for KVM memslots only.
    public func hostAddress(of region: MemoryRegion) -> UInt64 {
        // SAFETY: only the number leaves; nobody turns it back into a pointer but the kernel.
        unsafe UInt64(UInt(bitPattern: mapping.base)) + region.fileOffset
    }
}
