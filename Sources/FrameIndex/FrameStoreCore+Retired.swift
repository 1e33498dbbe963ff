public import FrameStore

// Places of frames without references, and those that frames have left: their memory is freed when no client can think of them as
// valid any more.

extension FrameStoreCore: FrameLifetime {
    struct Retired {
        var location: FrameLocation
        /// Places that go at once: 1, or a whole run.
        var places: Int32
        /// Of them, those that were written.
        var written: Int32
        var generation: UInt64
    }

    func freed(_ frame: FrameNumber, at slot: FrameLocation) {
        statistics.frames -= 1
        retire(slot, places: 1, written: 1)
    }

    func left(_ slot: FrameLocation) { retire(slot, places: 1, written: 1) }

    func retire(_ location: FrameLocation, places: Int, written: Int) {
        statistics.retired += written
        occurrences += 1
        retired.append(
            Retired(
                location: location, places: Int32(places), written: Int32(written), generation: generation))
    }

    /// Places that were retired before this generation no client can think of as valid any more.
    var safeGeneration: UInt64 {
        var safe = UInt64.max
        for client in clients.values where !client.isSilent { safe = min(safe, client.generation) }
        return safe
    }

    /// Punches what no client can think of as valid any more, neighbours together.
    func discardRetired(limit: Int) {
        guard retired.count > 0 else { return }
        let safe = safeGeneration
        let waiting = retired.count
        var left = limit
        var start: FrameLocation?
        var places = 0
        while left > 0, let item = retired.first, item.generation < safe {
            _ = retired.popFirst()
            left -= 1
            if let first = start, first.advanced(by: places) != item.location {
                backing.discard(first, count: places)
                start = nil
            }
            if start == nil { (start, places) = (item.location, 0) }
            places += Int(item.places)
            statistics.retired -= Int(item.written)
            slots.release(item.location)
            if slots.isTakenAbove(item.location) { unrest += 1 }
        }
        if let start { backing.discard(start, count: places) }
        // For what is left, others may have to speak.
        if retired.count < waiting, retired.count > 0 { occurrences += 1 }
    }

    /// Clients for whose next batch retired frames wait. Who stays quiet for long should be silenced.
    public func clientsHoldingBack() -> [StoreClient] {
        clients.values.filter(isHoldingBack).map(\.name)
    }

    /// Whether frames wait to be freed at all: for some client to speak, or for a sweep.
    public var hasRetired: Bool { retired.count > 0 }

    func isHoldingBack(_ client: Client) -> Bool {
        guard let first = retired.first else { return false }
        return !client.isSilent && client.generation <= first.generation
    }
}
