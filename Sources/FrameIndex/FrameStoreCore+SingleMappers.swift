import FrameStore

// Frames that should not be as they are. With one mapper they save nothing and cost a mapping: their pages may go home. In a place
// that does not continue their neighbours' they cost every mapper two: they get another place, and who maps the old one is told.

extension FrameStoreCore {
    private static let batchesToForgetPlaces: UInt64 = 1 << 14
    /// Memory of what is remembered of places that were left, in pages.
    private static let leftPlacesLimit = 128

    /// Whether a look at the client's frames would find nothing: none did since anything happened that could matter.
    func isCalm(_ client: Client) -> Bool { client.map.leases == 0 || client.calmUnrest == unrest }

    /// The client has a further lease: its place may continue its neighbours', or theirs its own.
    func disturb(_ client: Client) {
        client.roundUnrest = 0
        client.calmUnrest = 0
        occurrences += 1
    }

    /// Looks at some of a client's pages, from where the last look ended.
    func lookAtPlaces(of client: Client, _ reply: inout StoreReply) {
        if client.singleMapperCursor == 0 { client.roundUnrest = unrest }
        findPlaces(of: client, &reply)
        if client.map.words.firstPossible(from: client.singleMapperCursor) == client.map.pageCount {
            client.singleMapperCursor = 0
        }
        if !reply.singleMappers.isEmpty || !reply.moved.isEmpty { client.roundUnrest = 0 }
        if client.singleMapperCursor == 0 { client.calmUnrest = client.roundUnrest }
    }

    private func findPlaces(of client: Client, _ reply: inout StoreReply) {
        /// Where a page would continue what comes before it.
        var next: FrameLocation?
        var gap = 0
        var last = client.singleMapperCursor - 1
        let count = client.map.pageCount
        for _ in 0..<min(Self.singleMapperLook, count) {
            let page = client.map.words.firstPossible(from: client.singleMapperCursor)
            guard page < count, reply.singleMappers.count < Self.singleMapperLimit,
                reply.moved.count < Self.singleMapperLimit
            else {
                client.singleMapperCursor = page < count ? page : 0
                return
            }
            client.singleMapperCursor = page + 1
            if page != last + 1 { next = nil }
            last = page
            let mapper = ReverseMap.Mapper(client.map, ClientPage(page))
            guard let frame = map.frame(of: mapper) else {
                gap += 1
                next = gap < Self.placeReach ? next?.advanced(by: 1) : nil
                continue
            }
            gap = 0
            if map.references(frame) == 1 {
                reply.singleMappers.append(mapper.page)
            } else if let next, client.mayMakeFrames, isBetter(next, than: map.slot(of: frame)) {
                relocate(frame, to: next)
            }
            let slot = map.slot(of: frame)
            if map.isStale(mapper) { reply.moved.append(.init(page: mapper.page, location: slot)) }
            next = slot.advanced(by: 1)
        }
    }

    /// The same place in a lower layer. Guests may disagree about what is best, so each place is left once in a long time.
    private func isBetter(_ new: FrameLocation, than old: FrameLocation) -> Bool {
        if generation >= forgetLeftPlaces || leftPlaces.chunkCount > Self.leftPlacesLimit {
            leftPlaces = PageBitmap()
            forgetLeftPlaces = generation + Self.batchesToForgetPlaces
        }
        return new.segment < old.segment && new.page == old.page && slots.isFree(new)
            && !leftPlaces.contains(old.page)
    }

    private func relocate(_ frame: FrameNumber, to place: FrameLocation) {
        guard map.mayMove(frame), slots.take(at: place) else { return }
        let old = map.slot(of: frame)
        if swapSlot(of: frame, to: place) { leftPlaces.insert(old.page) }
    }

    /// Gives a frame another place while guests map it: its bytes are copied, whoever asks for it from now on is told the new
    /// place, and whoever maps the old one is asked to leave it. The old one is freed when all have.
    /// - Parameter place: taken for it; given back if the frame cannot move.
    /// - Returns: false when it stays where it is: it moves already, too many do, or there is no memory for it.
    @discardableResult
    func swapSlot(of frame: FrameNumber, to place: FrameLocation) -> Bool {
        guard map.mayMove(frame), statistics.retired < Self.retiredLimit else {
            slots.release(place)
            return false
        }
        do throws(FrameStoreError) { try backing.copy(from: map.slot(of: frame), to: place) } catch {
            // Part of it may have been written.
            backing.discard(place, count: 1)
            slots.release(place)
            return false
        }
        map.swapSlot(of: frame, to: place)
        // Those who map it are to be told.
        unrest += 1
        return true
    }
}
