// Tables by page number that cost nothing where nothing was entered, since the sizes come from clients.

/// A 32-bit word for each page of a client, zero at first. Memory is taken for 1024 pages at a time.
struct PageWords {
    private static let shift = 10
    let count: Int
    private var chunks: [[UInt32]]

    init(count: Int) {
        self.count = count
        chunks = [[UInt32]](repeating: [], count: (count + (1 << Self.shift) - 1) >> Self.shift)
    }

    subscript(page: Int) -> UInt32 {
        get {
            let chunk = page >> Self.shift
            return chunks[chunk].isEmpty ? 0 : chunks[chunk][page & ((1 << Self.shift) - 1)]
        }
        set {
            let chunk = page >> Self.shift
            if chunks[chunk].isEmpty {
                if newValue == 0 { return }
                chunks[chunk] = [UInt32](repeating: 0, count: 1 << Self.shift)
            }
            chunks[chunk][page & ((1 << Self.shift) - 1)] = newValue
        }
    }

    /// The first page at or after `page` in whose chunk something was ever entered; `count` when there is none.
    func firstPossible(from page: Int) -> Int {
        var page = page
        while page < count, chunks[page >> Self.shift].isEmpty {
            page = ((page >> Self.shift) + 1) << Self.shift
        }
        return min(page, count)
    }
}

/// A set of page numbers, a bit each; any number may be entered. Memory is taken for 32768 numbers at a time.
struct PageBitmap {
    private static let shift = 15
    private var chunks: [[UInt64]]
    private(set) var population = 0

    init(count: Int) {
        chunks = [[UInt64]](repeating: [], count: (count + (1 << Self.shift) - 1) >> Self.shift)
    }

    func contains(_ page: Int) -> Bool {
        let chunk = page >> Self.shift
        return chunk < chunks.count && !chunks[chunk].isEmpty
            && chunks[chunk][(page >> 6) & 511] & (1 << UInt64(page & 63)) != 0
    }

    mutating func insert(_ page: Int) {
        guard !contains(page) else { return }
        let chunk = page >> Self.shift
        while chunks.count <= chunk { chunks.append([]) }
        if chunks[chunk].isEmpty { chunks[chunk] = [UInt64](repeating: 0, count: 512) }
        chunks[chunk][(page >> 6) & 511] |= 1 << UInt64(page & 63)
        population += 1
    }

    mutating func remove(_ page: Int) {
        guard contains(page) else { return }
        chunks[page >> Self.shift][(page >> 6) & 511] &= ~(1 << UInt64(page & 63))
        population -= 1
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
