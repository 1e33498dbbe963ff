import FrameStore

// Frames that should not be as they are: with one mapper they save nothing and cost a mapping; in a place that does not
// continue their neighbours' they cost every mapper two. Their pages may go home, where they are seen again.

extension FrameStoreCore {
    /// Misplaced frames at a time: their memory is needed twice until all who map them have moved.
    private static let movingLimit = 512
    private static let batchesToForgetMoved: UInt64 = 1 << 14
    /// Memory of what is remembered of such places, in pages.
    private static let movedLimit = 128

    /// Whether a look at the client's frames would find nothing: none did since anything happened that could matter.
    func isCalm(_ client: Client) -> Bool { client.leases == 0 || client.calmUnrest == unrest }

    /// The client has a further lease: its place may continue its neighbours', or theirs its own.
    func disturb(_ client: Client) {
        client.roundUnrest = 0
        client.calmUnrest = 0
        occurrences += 1
    }

    /// Looks at some of a client's pages, from where the last look ended.
    func lookAtPlaces(of client: Client, _ reply: inout StoreReply) {
        if client.lonelyCursor == 0 { client.roundUnrest = unrest }
        findPlaces(of: client, &reply)
        if client.pages.firstPossible(from: client.lonelyCursor) == client.pages.count {
            client.lonelyCursor = 0
        }
        if !reply.lonely.isEmpty || !reply.misplaced.isEmpty { client.roundUnrest = 0 }
        if client.lonelyCursor == 0 { client.calmUnrest = client.roundUnrest }
    }

    private func findPlaces(of client: Client, _ reply: inout StoreReply) {
        /// Where a page would continue what comes before it.
        var next: FrameLocation?
        var gap = 0
        var last = client.lonelyCursor - 1
        for _ in 0..<min(Self.lonelyLook, client.pages.count) {
            let page = client.pages.firstPossible(from: client.lonelyCursor)
            guard page < client.pages.count, reply.lonely.count < Self.lonelyLimit,
                reply.misplaced.count < Self.lonelyLimit
            else {
                client.lonelyCursor = page < client.pages.count ? page : 0
                return
            }
            client.lonelyCursor = page + 1
            if page != last + 1 { next = nil }
            last = page
            let tag = client.pages[page]
            guard tag & Tag.leased != 0, tag & Tag.uniform == 0 else {
                gap += 1
                next = gap < Self.placeReach ? next?.advanced(by: 1) : nil
                continue
            }
            gap = 0
            let index = tag & Tag.index
            let entry = table[index]
            let place = FrameLocation(entry.place)
            if entry.references == 1 { reply.lonely.append(ClientPage(page)) }
            let moves = next.map { isBetter($0, than: place) } ?? false
            if entry.references > 1, moving.contains(index) || moves && moving.count < Self.movingLimit {
                if moving.insert(index).inserted {
                    hide(index)
                    unrest += 1
                    moved.insert(Int(place.value % FrameLocation.segmentSpan))
                }
                reply.misplaced.append(ClientPage(page))
            }
            next = (moves ? next : place)?.advanced(by: 1)
        }
    }

    /// The same place in a lower layer. Guests may disagree about what is best, so each place is left once in a long time.
    private func isBetter(_ new: FrameLocation, than old: FrameLocation) -> Bool {
        if generation >= forgetMoved || moved.chunkCount > Self.movedLimit {
            moved = PageBitmap()
            forgetMoved = generation + Self.batchesToForgetMoved
        }
        let number = old.value % FrameLocation.segmentSpan
        return new.segment < old.segment && new.value % FrameLocation.segmentSpan == number
            && slots.isFree(new)
            && !moved.contains(Int(number))
    }

    /// Nobody finds the frame any more, so who sees its content makes a new one, in a better place.
    private func hide(_ index: UInt32) {
        table.rekey(
            index,
            ContentHash(low: UInt64.random(in: 0...UInt64.max), high: UInt64.random(in: 0...UInt64.max)))
    }
}
