// Tables by page number that cost nothing where nothing was entered, since the sizes come from clients.

/// A 32-bit word for each page of a client, zero at first. Memory is taken for 1024 pages at a time, and for the table of these
/// chunks for a million: the claim to have many pages takes next to none. Each chunk has a count beside, of what its owner likes.
struct PageWords {
    private static let shift = 10
    private static let groupShift = 20
    let count: Int
    private var groups: [[[UInt32]]]
    /// Chunks that took memory. They keep it.
    private(set) var chunkCount = 0

    init(count: Int) {
        self.count = count
        groups = [[[UInt32]]](repeating: [], count: (count + (1 << Self.groupShift) - 1) >> Self.groupShift)
    }

    private static func chunk(_ page: Int) -> Int {
        (page & ((1 << groupShift) - 1)) >> shift
    }

    /// Whether memory was taken for the page.
    func hasMemory(_ page: Int) -> Bool {
        let group = page >> Self.groupShift
        return !groups[group].isEmpty && !groups[group][Self.chunk(page)].isEmpty
    }

    subscript(page: Int) -> UInt32 {
        get {
            guard hasMemory(page) else { return 0 }
            return groups[page >> Self.groupShift][Self.chunk(page)][page & ((1 << Self.shift) - 1)]
        }
        set {
            let (group, chunk) = (page >> Self.groupShift, Self.chunk(page))
            if !hasMemory(page) {
                if newValue == 0 { return }
                if groups[group].isEmpty {
                    groups[group] = [[UInt32]](
                        repeating: [], count: 1 << (Self.groupShift - Self.shift))
                }
                groups[group][chunk] = [UInt32](repeating: 0, count: (1 << Self.shift) + 1)
                chunkCount += 1
            }
            groups[group][chunk][page & ((1 << Self.shift) - 1)] = newValue
        }
    }

    /// Adds to the count of a page's chunk, of which something was entered.
    mutating func addToCount(of page: Int, _ difference: Int) {
        let (group, chunk) = (page >> Self.groupShift, Self.chunk(page))
        let old = Int(groups[group][chunk][1 << Self.shift])
        groups[group][chunk][1 << Self.shift] = UInt32(old + difference)
    }

    static func isFirstOfChunk(_ page: Int) -> Bool { page & ((1 << shift) - 1) == 0 }

    /// The first page at or after `page` in whose chunk the count is not 0, or where the look for it ended; `count` when there is
    /// none.
    /// - Parameter looks: chunks to be looked at, at most; those that were are taken from it.
    func firstCounted(from page: Int, looks: inout Int) -> Int {
        var page = page
        while page < count, looks > 0 {
            looks -= 1
            if hasMemory(page), groups[page >> Self.groupShift][Self.chunk(page)][1 << Self.shift] > 0 {
                return page
            }
            let shift = groups[page >> Self.groupShift].isEmpty ? Self.groupShift : Self.shift
            page = ((page >> shift) + 1) << shift
        }
        return min(page, count)
    }

    /// The first page at or after `page` in whose chunk something was ever entered; `count` when there is none.
    func firstPossible(from page: Int) -> Int {
        var page = page
        while page < count, !hasMemory(page) {
            let shift = groups[page >> Self.groupShift].isEmpty ? Self.groupShift : Self.shift
            page = ((page >> shift) + 1) << shift
        }
        return min(page, count)
    }
}

/// A set of page numbers, a bit each; any number may be entered. Memory is taken for 32768 numbers at a time, and given back when
/// none of them is left.
struct PageBitmap {
    private static let shift = 15
    private static let words = 1 << (shift - 6)
    /// The last word of each counts its bits.
    private var chunks: [[UInt64]] = []
    private(set) var population = 0
    /// Chunks that take memory.
    private(set) var chunkCount = 0

    func contains(_ page: Int) -> Bool {
        let chunk = page >> Self.shift
        return chunk < chunks.count && !chunks[chunk].isEmpty
            && chunks[chunk][(page >> 6) & (Self.words - 1)] & (1 << UInt64(page & 63)) != 0
    }

    mutating func insert(_ page: Int) {
        guard !contains(page) else { return }
        let chunk = page >> Self.shift
        while chunks.count <= chunk { chunks.append([]) }
        if chunks[chunk].isEmpty {
            chunks[chunk] = [UInt64](repeating: 0, count: Self.words + 1)
            chunkCount += 1
        }
        chunks[chunk][(page >> 6) & (Self.words - 1)] |= 1 << UInt64(page & 63)
        chunks[chunk][Self.words] += 1
        population += 1
    }

    mutating func remove(_ page: Int) {
        guard contains(page) else { return }
        let chunk = page >> Self.shift
        population -= 1
        chunks[chunk][Self.words] -= 1
        if chunks[chunk][Self.words] == 0 {
            chunks[chunk] = []
            chunkCount -= 1
        } else {
            chunks[chunk][(page >> 6) & (Self.words - 1)] &= ~(1 << UInt64(page & 63))
        }
    }
}

/// A set of numbers below 256, without memory of its own.
struct SmallBitmap {
    private var words: (UInt64, UInt64, UInt64, UInt64) = (0, 0, 0, 0)
    private(set) var population = 0

    func contains(_ number: Int) -> Bool {
        let word =
            switch number >> 6 {
            case 0: words.0
            case 1: words.1
            case 2: words.2
            default: words.3
            }
        return word & (1 << UInt64(number & 63)) != 0
    }

    mutating func insert(_ number: Int) {
        guard !contains(number) else { return }
        let bit: UInt64 = 1 << UInt64(number & 63)
        switch number >> 6 {
        case 0: words.0 |= bit
        case 1: words.1 |= bit
        case 2: words.2 |= bit
        default: words.3 |= bit
        }
        population += 1
    }
}

/// First in, first out.
struct FIFO<Element> {
    private var elements: [Element] = []
    private var head = 0
    var count: Int { elements.count - head }
    var first: Element? { head < elements.count ? elements[head] : nil }
    mutating func append(_ element: Element) { elements.append(element) }
    mutating func popFirst() -> Element? {
        guard head < elements.count else { return nil }
        defer {
            head += 1
            if head == elements.count {
                elements.removeAll(keepingCapacity: head <= 4096)
                head = 0
            } else if head >= 1024, head * 2 >= elements.count {
                elements.removeFirst(head)
                head = 0
            }
        }
        return elements[head]
    }
    mutating func removeAll() {
        elements = []
        head = 0
    }
}
