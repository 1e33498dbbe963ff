// Frames with one mapper: they save nothing and cost a mapping, so their pages may go home.

extension FrameStoreCore {
    /// Looks at some of a client's pages, from where the last look ended.
    func lonelyPages(_ client: Client) -> [ClientPage] {
        var found: [ClientPage] = []
        for _ in 0..<min(Self.lonelyLook, client.pages.count) {
            let page = client.pages.firstPossible(from: client.lonelyCursor)
            guard page < client.pages.count, found.count < Self.lonelyLimit else {
                client.lonelyCursor = page < client.pages.count ? page : 0
                break
            }
            client.lonelyCursor = page + 1
            let tag = client.pages[page]
            guard tag & Tag.leased != 0, tag & Tag.uniform == 0 else { continue }
            if table[tag & Tag.index].references == 1 { found.append(ClientPage(page)) }
        }
        return found
    }
}
