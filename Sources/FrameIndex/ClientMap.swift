import FrameStore

/// By how much the page numbers of a client's mappers differ from those of their frames' places: the displacements that recur. A
/// guest of a kind that others are of too has most of its mappers at displacement 0, or at few others.
///
/// A displacement gets a place here as soon as it is met, if need be that of one with a single page, which becomes a stray: so
/// those with many pages stay, whatever else comes and goes. No step takes longer than a look at all of them.
struct Numberings {
    /// Of a client, at most.
    static let limit = 16
    struct Numbering {
        var displacement: Int32
        var pages: UInt32
        /// The only one of its pages, if it has one; of others, one that was entered, or none.
        fileprivate var first: ClientPage
    }
    private static let none = ClientPage.max
    /// The first is 0's, which is always there.
    private(set) var all = [Numbering(displacement: 0, pages: 0, first: Numberings.none)]
    /// Where the look for one that gives way begins.
    private var hand = 1

    enum Entry: Equatable {
        case entered
        /// In the place of a page that is a stray from now on.
        case enteredInstead(of: ClientPage)
        case stray
    }

    /// Counts a page, or finds no room for it.
    mutating func enter(_ page: ClientPage, _ displacement: Int32) -> Entry {
        if let index = all.firstIndex(where: { $0.displacement == displacement }) {
            if all[index].pages == 0 { all[index].first = page }
            all[index].pages += 1
            return .entered
        }
        let new = Numbering(displacement: displacement, pages: 1, first: page)
        if all.count < Self.limit {
            all.append(new)
            return .entered
        }
        for _ in 1..<Self.limit {
            let index = hand
            hand = hand + 1 == Self.limit ? 1 : hand + 1
            if all[index].pages == 1, all[index].first != Self.none {
                let old = all[index].first
                all[index] = new
                return .enteredInstead(of: old)
            }
        }
        return .stray
    }

    /// Counts a page no more that was counted.
    mutating func leave(_ page: ClientPage, _ displacement: Int32) {
        guard let index = all.firstIndex(where: { $0.displacement == displacement }) else {
            preconditionFailure("a page that is no stray is counted by a numbering")
        }
        all[index].pages -= 1
        if all[index].first == page { all[index].first = Self.none }
        guard all[index].pages == 0, index != 0 else { return }
        all.swapAt(index, all.count - 1)
        all.removeLast()
        hand = 1
    }
}

/// A client's half of ``ReverseMap``: for each of its pages, what it is to the store. 4 bytes for each page of a chunk of 1024 of
/// which anything was ever known.
final class ClientMap {
    let name: StoreClient
    /// Rises from client to client that joins.
    let sequence: UInt64
    private(set) var words: PageWords
    private(set) var numberings = Numberings()
    /// Mappers that no numbering leads to. Chunks of `words` count their own.
    private(set) var strays = 0
    /// Pages that are leased, and pages of which anything is known: sighted or leased.
    private(set) var leases = 0
    private(set) var known = 0

    init(_ name: StoreClient, pageCount: Int, sequence: UInt64) {
        self.name = name
        self.sequence = sequence
        words = PageWords(count: pageCount)
    }

    var pageCount: Int { words.count }

    subscript(page: Int) -> MapperWord { MapperWord(raw: words[page]) }
    subscript(page: ClientPage) -> MapperWord { MapperWord(raw: words[Int(page)]) }

    /// Replaces what a page is, a mapper's place in the numberings apart.
    func set(_ page: ClientPage, _ word: MapperWord) {
        let old = self[page]
        words[Int(page)] = word.raw
        leases += (word.isLeased ? 1 : 0) - (old.isLeased ? 1 : 0)
        known += (word.isNothing ? 0 : 1) - (old.isNothing ? 0 : 1)
        if word.isStray != old.isStray {
            strays += word.isStray ? 1 : -1
            words.addToCount(of: Int(page), word.isStray ? 1 : -1)
        }
    }

    // MARK: numberings

    static func displacement(_ page: ClientPage, _ slot: FrameLocation) -> Int32 {
        Int32(page) - Int32(slot.page)
    }

    /// Makes a page a mapper of a frame at a place.
    func place(_ page: ClientPage, _ frame: FrameNumber, parity: Bool, at slot: FrameLocation) {
        let entry = numberings.enter(page, Self.displacement(page, slot))
        set(page, .mapper(of: frame, parity: parity, isStray: entry == .stray))
        if case .enteredInstead(let other) = entry {
            let word = self[other]
            set(other, .mapper(of: word.frame, parity: word.hasParity, isStray: true))
        }
    }

    /// A mapper of a frame at a place is to be none any more: the numberings forget it.
    func displace(_ page: ClientPage, from slot: FrameLocation) {
        if !self[page].isStray { numberings.leave(page, Self.displacement(page, slot)) }
    }
}

extension FrameLocation {
    /// The place's page number in its segment.
    var page: Int { Int(value % Self.segmentSpan) }
}
