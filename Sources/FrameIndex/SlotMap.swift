import FrameStore

/// Which places of the store's address space are taken.
///
/// Segment 0 takes frames for which there is no place elsewhere; segment 1 the copies of uniform pages, in runs; the
/// others are layers: in each, one frame may have the place of each guest page number. Guests of one kind hold equal
/// memory at equal addresses, so most of what they share lies in one layer, whoever saw it first, and long stretches of a
/// guest are one mapping of it. What guests of another kind hold at the same addresses lies in another layer.
struct SlotMap {
    static let layerLimit = Int(FrameLocation.end / FrameLocation.segmentSpan) - Int(firstLayer)
    /// Pages of a run of copies.
    static let runLength = 256
    private static let overflowSegment: UInt32 = 0
    private static let runSegment: UInt32 = 1
    private static let firstLayer: UInt32 = 2

    private var layers: [PageBitmap] = []
    private var overflowNext: UInt64 = 0
    private var overflowFree: [UInt64] = []
    private var runNext: UInt64 = 0
    private var runFree: [FrameLocation] = []

    /// The place of a page number in the first layer in which it is free.
    mutating func take(page: ClientPage) -> FrameLocation? {
        let free = layers.indices.first { !layers[$0].contains(Int(page)) } ?? layers.count
        guard free < Self.layerLimit else { return nil }
        if free == layers.count { layers.append(PageBitmap()) }
        layers[free].insert(Int(page))
        return FrameLocation(segment: Self.firstLayer + UInt32(free), page: UInt64(page))
    }

    /// The place so many pages beside another, in the same layer, if it is free.
    func freePlace(beside location: FrameLocation, distance: Int) -> FrameLocation? {
        let page = location.page + distance
        guard location.segment >= Self.firstLayer, 0..<Int(FrameLocation.segmentSpan) ~= page else {
            return nil
        }
        let place = FrameLocation(segment: location.segment, page: UInt64(page))
        return isFree(place) ? place : nil
    }

    /// Takes just this place.
    mutating func take(at location: FrameLocation) -> Bool {
        guard isFree(location) else { return false }
        layers[Int(location.segment - Self.firstLayer)].insert(
            location.page)
        return true
    }

    /// Whether a frame could have just this place.
    func isFree(_ location: FrameLocation) -> Bool {
        guard location.segment >= Self.firstLayer, Int(location.segment - Self.firstLayer) < layers.count
        else { return false }
        return !layers[Int(location.segment - Self.firstLayer)].contains(
            location.page)
    }

    /// Whether a frame has the same page number in a higher layer.
    func isTakenAbove(_ location: FrameLocation) -> Bool {
        guard location.segment >= Self.firstLayer else { return false }
        let page = location.page
        return layers.dropFirst(Int(location.segment - Self.firstLayer) + 1).contains { $0.contains(page) }
    }

    /// Any free place outside the layers.
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
        case let segment: layers[Int(segment - Self.firstLayer)].remove(Int(page))
        }
    }
}
