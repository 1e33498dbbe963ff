public import FrameStore

// What a client says costs memory: of the store for frames, of the index for what is known of its pages. How much it may cost
// is for the store's owner to say, who knows what the client's process can hold.

extension FrameStoreCore {
    /// Bytes of the index for each page of which anything is known: 39, measured.
    public static let bytesOfPage = 39
    /// In pages, what a table of 1024 pages costs, whether one of them is known or all.
    static let tableLoad = 4096 / bytesOfPage

    /// What a client costs, in pages: those of which anything is known, each of which may have a frame, and the tables for them.
    /// 0 when there is no such client (any more).
    public func load(of name: StoreClient) -> Int { clients[name].map(load) ?? 0 }

    /// Sets what the client's load, with the frames of the store that wait to be freed when it makes another, may become.
    /// What goes beyond it is refused; what is known already stays. There is no limit at first.
    /// - Parameter mayMakeFrames: else the client may only use those that are there.
    public func setRoom(_ load: Int, mayMakeFrames: Bool = true, of name: StoreClient) {
        clients[name]?.room = load
        clients[name]?.mayMakeFrames = mayMakeFrames
    }

    private func load(_ client: Client) -> Int {
        client.map.known + client.map.words.chunkCount * Self.tableLoad
    }

    /// Whether something may become known of the page, of which nothing is.
    func hasRoom(_ client: Client, _ page: ClientPage) -> Bool {
        let table = client.map.words.hasMemory(Int(page)) ? 0 : Self.tableLoad
        return load(client) + table < client.room
    }

    /// Whether the client may make a frame. Frames that were dropped take memory until they are freed.
    func hasRoomForFrame(_ client: Client) -> Bool {
        client.mayMakeFrames && load(client) < client.room - statistics.retired
    }
}
