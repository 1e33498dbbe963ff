/// What a store knows of a page of a client that asks.
public enum PageSharing: Equatable, Sendable {
    case nothing
    /// What the page held was seen, in no other page of the domain.
    case sighted
    /// So many pages of the domain's clients map its frame, this one included.
    case frame(mappers: UInt32)
    /// So many pages map copies of its pattern, this one included.
    case uniform(mappers: UInt32)
}

/// A page that maps a frame, and whose it is.
public struct FrameMapper: Equatable, Sendable {
    /// The process, as the broker sees it; the number of a client in a store within the process.
    public var client: UInt32
    public var page: ClientPage
    public init(client: UInt32, page: ClientPage) {
        self.client = client
        self.page = page
    }
}
