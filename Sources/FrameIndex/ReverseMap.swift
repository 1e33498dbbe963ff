import FrameStore

/// Told of what ``ReverseMap`` finds out when mappers go. Called in the middle of an operation: it must not use the map.
protocol FrameLifetime: AnyObject {
    /// The frame has lost its last mapper; its number is void.
    func freed(_ frame: FrameNumber, at slot: FrameLocation)
    /// Nobody maps the place that a frame had before it got another.
    func left(_ slot: FrameLocation)
}

/// Which pages of which clients map a frame: the kernel's rmap, for frames. Also the contents' table, whose entries frames are,
/// and what clients sighted.
///
/// It takes 4 bytes for a page of a client (``ClientMap``), and nothing for a frame beyond its entry: mappers are found where they
/// are expected. A frame's place keeps its donor's page number, and guests of one kind hold equal memory at equal addresses; what
/// lies elsewhere recurs at few displacements (``Numberings``), each of which a walk tries. Mappers that none of them leads to
/// are strays: the walk reads the chunks of page tables that hold some.
///
/// Pages that map copies of a uniform page are no mappers: such copies are found by their pattern, and have no number.
///
/// Not thread-safe. Every operation but ``join(_:pageCount:)`` and ``part(_:)`` takes a time that does not depend on how much there
/// is; a walk goes in slices.
final class ReverseMap {
    /// A page that maps a frame.
    struct Mapper {
        let client: ClientMap
        let page: ClientPage
        init(_ client: ClientMap, _ page: ClientPage) {
            self.client = client
            self.page = page
        }
    }
    /// What a page was that is nothing now.
    enum Removal: Equatable {
        case nothing
        /// It had sighted a content, of which nothing is known any more.
        case sighting
        /// It mapped a copy of a pattern, whose references are counted elsewhere.
        case uniform(pattern: Int)
        case shared(left: UInt32)
        /// It was the last: the frame's end was told.
        case last(FrameNumber)
    }

    var table: ContentTable
    weak var lifetime: (any FrameLifetime)?
    /// By their sequence.
    private(set) var members: [ClientMap] = []
    private var nextSequence: UInt64 = 1
    var relocations: [FrameNumber: Relocation] = [:]
    /// Counts what may have changed where a walk would find a mapper.
    var changes: UInt64 = 0

    /// - Parameter key: random and known to nobody else.
    init(key: UInt64) { table = ContentTable(key: key) }

    // MARK: clients

    func join(_ name: StoreClient, pageCount: Int) -> ClientMap {
        let client = ClientMap(name, pageCount: pageCount, sequence: nextSequence)
        nextSequence += 1
        members.append(client)
        return client
    }

    /// A client is gone, and had its pages removed before.
    func part(_ client: ClientMap) {
        precondition(client.known == 0, "a client's pages go before it does")
        members.remove(at: index(ofSequence: client.sequence))
    }

    /// The place among the members of the first whose sequence is not below this.
    func index(ofSequence sequence: UInt64) -> Int {
        var (low, high) = (0, members.count)
        while low < high {
            let middle = (low + high) / 2
            if members[middle].sequence < sequence { low = middle + 1 } else { high = middle }
        }
        return low
    }

    // MARK: frames

    /// The place of a frame; of one that moves, the new one.
    func slot(of frame: FrameNumber) -> FrameLocation { table[frame.value].slot }
    /// Its mappers.
    func references(_ frame: FrameNumber) -> UInt32 { table[frame.value].references }

    /// The frame that a page maps, or is told to map.
    func frame(of mapper: Mapper) -> FrameNumber? {
        let word = mapper.client[mapper.page]
        return word.isMapper ? word.frame : nil
    }

    // MARK: mappers

    /// A page that is nothing becomes a mapper of a frame.
    /// - Returns: false when no more can be counted; nothing is changed then.
    func add(_ mapper: Mapper, to frame: FrameNumber) -> Bool {
        precondition(mapper.client[mapper.page].isNothing, "a page maps one frame")
        let entry = table[frame.value]
        guard entry.references < UInt32.max else { return false }
        changes += 1
        table.setReferences(entry.references + 1, of: frame.value)
        mapper.client.place(mapper.page, frame, parity: entry.parity, at: entry.slot)
        return true
    }

    /// A page becomes nothing, whatever it was.
    @discardableResult
    func remove(_ mapper: Mapper) -> Removal {
        let word = mapper.client[mapper.page]
        if word.isNothing { return .nothing }
        if word.isSighted {
            mapper.client.set(mapper.page, .nothing)
            table.remove(word.number)
            return .sighting
        }
        if word.isUniform {
            mapper.client.set(mapper.page, .nothing)
            return .uniform(pattern: Int(word.number))
        }
        let entry = table[word.number]
        changes += 1
        mapper.client.displace(mapper.page, from: mappedSlot(word, entry))
        mapper.client.set(mapper.page, .nothing)
        if word.hasParity != entry.parity { left(word.frame) }
        if entry.references > 1 {
            table.setReferences(entry.references - 1, of: word.number)
            return .shared(left: entry.references - 1)
        }
        table.remove(word.number)
        lifetime?.freed(word.frame, at: entry.slot)
        return .last(word.frame)
    }

    /// A page that is nothing gets a copy of a pattern.
    func addUniform(_ mapper: Mapper, pattern: Int) {
        mapper.client.set(mapper.page, .uniform(pattern))
    }

    // MARK: sightings

    /// A page that is nothing sights a content that is not known yet.
    /// - Returns: false when the table is full.
    func sight(_ mapper: Mapper, _ hash: ContentHash) -> Bool {
        guard let index = table.insert(hash, place: Self.sighted(mapper)) else { return false }
        mapper.client.set(mapper.page, .sighted(index))
        return true
    }

    /// A content that another page sighted, if there is one still, becomes this page's sighting.
    func takeOver(_ index: UInt32, from sighter: Mapper?, by mapper: Mapper) {
        sighter?.client.set(sighter?.page ?? 0, .nothing)
        table.setPlace(Self.sighted(mapper), of: index)
        mapper.client.set(mapper.page, .sighted(index))
    }

    private static func sighted(_ mapper: Mapper) -> UInt64 {
        UInt64(mapper.client.name.value) << 32 | UInt64(mapper.page)
    }

    /// A content that one page sighted becomes a frame, with that page as its mapper.
    func makeFrame(_ index: UInt32, of sighter: Mapper, at slot: FrameLocation) -> FrameNumber {
        let frame = FrameNumber(index)
        changes += 1
        table.setSlot(slot, parity: false, of: index)
        table.setReferences(1, of: index)
        sighter.client.set(sighter.page, .nothing)
        sighter.client.place(sighter.page, frame, parity: false, at: slot)
        return frame
    }
}
