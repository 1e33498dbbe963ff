/// Which places of the store's address space are taken.
///
/// Segment 0 takes frames whose own places are taken; segment 1 the copies of uniform pages, in runs; each client gets a
/// segment of its own. A segment is used again only when its owner is gone and its last frame was discarded.
struct SlotMap {
    /// Segments at a time, those of clients that are gone but whose frames are still used included.
    static let segmentLimit = 8192
    /// Pages of a run of copies.
    static let runLength = 128
    private static let overflowSegment: UInt32 = 0
    private static let runSegment: UInt32 = 1
    /// First page number after the last that is ever used.
    static let end = UInt64(segmentLimit + 2) * FrameLocation.segmentSpan

    private struct Segment {
        var taken: PageBitmap
        var pageCount: Int
        var hasOwner = true
    }
    private var segments: [UInt32: Segment] = [:]
    private var freeSegments: [UInt32] = []
    private var nextSegment: UInt32 = 2
    private var overflowNext: UInt64 = 0
    private var overflowFree: [UInt64] = []
    private var runNext: UInt64 = 0
    private var runFree: [FrameLocation] = []

    /// A segment for a client; nil when too many are in use.
    mutating func openSegment(pageCount: Int) -> UInt32? {
        guard segments.count < Self.segmentLimit else { return nil }
        let number = freeSegments.popLast() ?? nextSegment
        if number == nextSegment { nextSegment += 1 }
        segments[number] = Segment(taken: PageBitmap(count: pageCount), pageCount: pageCount)
        return number
    }

    /// The segment's owner is gone.
    mutating func closeSegment(_ number: UInt32) {
        segments[number]?.hasOwner = false
        recycle(number)
    }

    private mutating func recycle(_ number: UInt32) {
        guard segments[number]?.hasOwner == false, segments[number]?.taken.population == 0 else { return }
        segments[number] = nil
        freeSegments.append(number)
    }

    /// The place of a page in a segment, if it is free.
    mutating func take(segment number: UInt32, page: ClientPage) -> FrameLocation? {
        // No copy of the segment may be alive when its set is changed: it would be copied whole.
        guard let pageCount = segments[number]?.pageCount, page < pageCount,
            segments[number]?.taken.contains(Int(page)) == false
        else { return nil }
        segments[number]?.taken.insert(Int(page))
        return FrameLocation(segment: number, page: UInt64(page))
    }

    /// Any free place outside the clients' segments.
    mutating func takeOverflow() -> FrameLocation? {
        if let free = overflowFree.popLast() {
            return FrameLocation(segment: Self.overflowSegment, page: free)
        }
        guard overflowNext < FrameLocation.segmentSpan else { return nil }
        defer { overflowNext += 1 }
        return FrameLocation(segment: Self.overflowSegment, page: overflowNext)
    }

    /// Places for ``runLength`` copies of a uniform page.
    mutating func takeRun() -> FrameLocation? {
        if let free = runFree.popLast() { return free }
        guard runNext < FrameLocation.segmentSpan else { return nil }
        defer { runNext += UInt64(Self.runLength) }
        return FrameLocation(segment: Self.runSegment, page: runNext)
    }

    /// Gives back a place, or a run's first place, whose memory was discarded.
    mutating func release(_ location: FrameLocation) {
        let page = location.value % FrameLocation.segmentSpan
        switch location.segment {
        case Self.overflowSegment: overflowFree.append(page)
        case Self.runSegment: runFree.append(location)
        default:
            segments[location.segment]?.taken.remove(Int(page))
            recycle(location.segment)
        }
    }
}
