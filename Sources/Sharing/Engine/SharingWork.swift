/// Work that is begun only when there is heap for the most that it can take: to run out in the middle would end the process.
public enum SharingWork: CaseIterable, Sendable {
    /// A word with the store: to find it, or so that it does not take this client for lost.
    case talk
    /// A pass, or what is between two: a chunk of pages, a batch, an answer, and what is made of those.
    case pass
    /// Arranging a slice: the plan has parts for stretches of like pages, at worst each page by itself.
    case arrangement

    /// Bytes of heap at most.
    public var heapBytes: Int {
        switch self {
        case .talk: 512 << 10
        case .pass: 3 << 20
        case .arrangement: 7 << 20
        }
    }
}

/// Mappings, as the kernel counts them.
public struct MappingCount: Equatable, Sendable {
    /// Of guest memory.
    public var guest: Int
    /// Of the whole process.
    public var process: Int
    /// The most that a process may have.
    public var limit: Int

    public init(guest: Int, process: Int, limit: Int) {
        (self.guest, self.process, self.limit) = (guest, process, limit)
    }

    /// What is left for whoever else maps, the C library above all.
    private var reserve: Int { min(limit / 8, 1024) }
    /// Mappings that guest memory may consist of, with what else there is.
    var most: Int { limit - reserve - (process - guest) }
}
