import FrameStore

// What is known of pages, and who maps a frame: for whoever asks why a page is shared, or is not.

extension FrameStoreCore {
    /// Mappers that are named at most, and looks that are taken to find them.
    static let mapperLimit = 64
    private static let looksForMappers = 1 << 16

    /// What the store knows of a client's page.
    func explain(_ client: Client, _ page: ClientPage) -> PageSharing {
        let word = client.map[page]
        if word.isNothing { return .nothing }
        if word.isSighted { return .sighted }
        if word.isUniform {
            return .uniform(mappers: UInt32(clamping: patterns[Int(word.number)]?.references ?? 0))
        }
        return .frame(mappers: map.references(word.frame))
    }

    /// Other pages that map the frame of a client's page, as many as a bounded walk meets.
    func companions(of page: ClientPage, _ client: Client) -> [FrameMapper] {
        guard let frame = map.frame(of: .init(client.map, page)) else { return [] }
        var found: [FrameMapper] = []
        var cursor = ReverseMap.Cursor()
        // One slice: nothing changes meanwhile, so none is met twice.
        map.walk(frame, from: &cursor, limit: Self.looksForMappers) { mapper in
            if found.count == Self.mapperLimit || mapper.client === client.map && mapper.page == page {
                return
            }
            found.append(FrameMapper(client: mapper.client.name.value, page: mapper.page))
        }
        return found
    }
}
