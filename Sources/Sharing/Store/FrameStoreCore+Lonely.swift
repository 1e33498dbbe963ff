// Frames that should not be as they are: with one mapper they save nothing and cost a mapping; in a place that does not
// continue their neighbours' they cost every mapper two. Their pages may go home, where they are seen again.

extension FrameStoreCore {
    /// Misplaced frames at a time: their memory is needed twice until all who map them have moved.
    private static let movingLimit = 512

    /// Looks at some of a client's pages, from where the last look ended.
    func lookAtPlaces(of client: Client, _ reply: inout StoreReply) {
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
            let isBetter = next.map { $0.segment < place.segment && slots.isFree($0) } ?? false
            if entry.references > 1, moving.contains(index) || isBetter && moving.count < Self.movingLimit {
                if moving.insert(index).inserted { hide(index) }
                reply.misplaced.append(ClientPage(page))
            }
            next = (isBetter ? next : place)?.advanced(by: 1)
        }
    }

    /// Nobody finds the frame any more, so who sees its content makes a new one, in a better place.
    private func hide(_ index: UInt32) {
        table.rekey(
            index,
            ContentHash(low: UInt64.random(in: 0...UInt64.max), high: UInt64.random(in: 0...UInt64.max)))
    }
}
