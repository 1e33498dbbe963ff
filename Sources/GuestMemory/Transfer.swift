internal import LinuxHost

/// Bytes that a device is about to write into guest memory, from the moment that they are asked of a disk, a socket or a
/// thread until they are there.
///
/// While it lives, its pages count as in flight: the sharing engine leaves them alone. When it ends, they are marked as
/// written, whatever came of the write. A device has no other way to write guest memory, so none can forget either. It may be
/// handed to another thread; it is used by one at a time.
public struct Transfer: ~Copyable, Sendable {
    let memory: GuestMemory
    /// Where the bytes go, in the memory file, in order; empty segments are left out.
    let segments: [Range<Int>]
    /// How many bytes it takes, in all segments.
    public let count: Int

    init(_ memory: GuestMemory, _ segments: [Range<Int>]) {
        (self.memory, self.segments) = (memory, segments)
        count = segments.reduce(0) { $0 + $1.count }
        for segment in segments { memory.inFlight.begin(GuestMemory.pages(segment)) }
    }

    deinit {
        for segment in segments {
            let pages = GuestMemory.pages(segment)
            memory.dirtyBitmap.mark(pages)
            memory.inFlight.end(pages)
        }
    }
}

extension GuestMemory {
    /// Begins a write by a device to ranges of guest memory, which may be many: the writable part of a descriptor chain (virtio
    /// 1.2, 2.6.4).
    /// - Throws: `outOfRange` when a range is not all RAM of one region; nothing is in flight then.
    public func beginTransfer(to ranges: [GuestRange]) throws(GuestMemoryError) -> Transfer {
        var segments: [Range<Int>] = []
        segments.reserveCapacity(ranges.count)
        for range in ranges where range.sizeInBytes > 0 {
            let start = try offset(of: range.start, count: range.sizeInBytes)
            segments.append(start..<start + Int(range.sizeInBytes))
        }
        return Transfer(self, segments)
    }

    /// The pages, as bitmaps and counts number them, that hold bytes of the memory file.
    static func pages(_ bytes: Range<Int>) -> Range<Int> {
        bytes.lowerBound >> Int(Page.shift)..<((bytes.upperBound - 1) >> Int(Page.shift)) + 1
    }
}
