internal import FrameStore
internal import GuestMemory
internal import LinuxHost

/// The guest's half of the reverse map: what each page is backed by, and whether the store counts a reference for it. 7 bytes a
/// page with what `Volatility` knows, in memory that costs nothing where nothing is known.
///
/// ```
///            touch           map                unshare
///  untouched -----> home ----------> mapped --------------> unshared
///      ^            ^ | \  zero                               ^  | map, zero
///      |            | |  `---------> zero -- unshare, absorb -+  v
///      |            | `--- absorb: a private copy over either-'  (mapped, zero)
///      '-- rehome --+------------------ rehome, fallHome ------------
/// ```
/// *home*: in the guest's own memory file. *mapped*: a private mapping of a frame, unwritten. *zero*: reads give the
/// kernel's zero page, unwritten. *unshared*: a private copy over either. A page is *known* while the store has a sighting
/// of it or counts a reference for it.
///
/// The state changes by the verbs below alone, after the mapping was changed. What the store has to be told then stands in
/// ``removals``.
final class GuestPages {
    enum Kind: UInt8, CaseIterable {
        case untouched = 0
        case home
        case mapped
        case zero
        case unshared
    }

    let count: Int
    /// Pages that the store shall forget: a sighting, or a reference whose mapping is gone.
    let removals: PageSet
    private let places: LazyArray<UInt32>
    private let states: LazyArray<UInt8>
    private let rounds: LazyArray<UInt8>
    private let journal: EngineJournal
    /// Pages by kind, and those of them that are known.
    private var population = [Int](repeating: 0, count: 8)
    private var known = [Int](repeating: 0, count: 8)
    /// Places where the backing is not continued from one page to the next: mappings, less one.
    private(set) var boundaries = 0
    /// Pages whose backing belongs to a store that is lost.
    private(set) var orphanCount = 0
    /// Pages whose sharing was given up for fewer mappings.
    private(set) var givenUpCount = 0
    /// Pages whose frames were found to have no other mapper.
    private(set) var singleMapperCount = 0

    private enum Flag {
        static let kind: UInt8 = 0x07
        static let known: UInt8 = 0x08
        static let orphan: UInt8 = 0x40
        static let givenUp: UInt8 = 0x80
    }
    /// In ``places``: of a page at home 0, of one over zeros this, of one over a frame the frame's location and 1.
    private static let zeroPlace = UInt32.max
    /// Bytes of bookkeeping for each page that is tracked, those of ``Volatility`` included.
    static let bytesPerPage = 5 + Volatility.bytesPerPage

    /// - Throws: when there is no address space for the tables.
    init(count: Int, _ journal: EngineJournal) throws(LinuxError) {
        self.count = count
        self.journal = journal
        removals = try PageSet(pageCount: count)
        places = try LazyArray(count: count)
        states = try LazyArray(count: count)
        rounds = try LazyArray(count: count)
        population[Int(Kind.untouched.rawValue)] = count
    }

    // MARK: what is known

    func kind(_ page: Int) -> Kind { Kind(rawValue: states[page] & Flag.kind) ?? .untouched }
    func count(of kind: Kind) -> Int { population[Int(kind.rawValue)] }
    var touchedCount: Int { count - count(of: .untouched) }
    /// Mapped to a frame or to zeros, unwritten.
    func isMerged(_ page: Int) -> Bool {
        switch kind(page) {
        case .mapped, .zero: true
        case .untouched, .home, .unshared: false
        }
    }
    /// The store has a sighting of it, or counts a reference for it.
    func isKnown(_ page: Int) -> Bool { states[page] & Flag.known != 0 }
    /// Pages that were sighted and are shared with nobody.
    var sightedCount: Int { known[Int(Kind.home.rawValue)] + known[Int(Kind.unshared.rawValue)] }
    /// Its sharing was given up for fewer mappings; until it is anything else.
    func isGivenUp(_ page: Int) -> Bool { states[page] & Flag.givenUp != 0 }
    /// Its backing belongs to a store that is lost.
    func isOrphan(_ page: Int) -> Bool { states[page] & Flag.orphan != 0 }

    func backing(_ page: Int) -> PageBacking {
        switch places[page] {
        case 0: .home
        case Self.zeroPlace: .zero
        case let place: .frame(FrameLocation(UInt64(place - 1)))
        }
    }

    // MARK: verbs: the mapping

    /// The page turned out to have memory: it was written, or read.
    func touch(_ page: Int) {
        if kind(page) == .untouched { set(page, .home) }
    }

    /// One mapping of frames was made.
    /// - Parameter kept: pages of it, in order, that got private copies of what they held.
    /// - Returns: what the mapping hides of home.
    func map(_ pages: Range<Int>, to location: FrameLocation, keeping kept: [Int]) -> [Range<Int>] {
        let hidden = pagesAtHome(pages)
        setBacking(pages, .frame(location))
        var remaining = kept[...]
        for page in pages {
            let isKept = remaining.first == page
            if isKept { remaining = remaining.dropFirst() }
            // What had a reference maps nothing of it any more.
            if isKept, isMerged(page) { forget(page) }
            set(page, isKept ? .unshared : .mapped)
            setOrphan(page, false)
        }
        return hidden
    }

    /// One mapping of zeros was made.
    /// - Returns: what it hides of home.
    func zero(_ pages: Range<Int>) -> [Range<Int>] {
        let hidden = pagesAtHome(pages)
        setBacking(pages, .zero)
        for page in pages {
            forget(page)
            set(page, .zero)
            setOrphan(page, false)
        }
        return hidden
    }

    /// A merged page has a private copy now: the guest wrote it.
    func unshare(_ page: Int) {
        precondition(isMerged(page), "only what is merged is unshared")
        journal.count { $0.pagesUnsharedTotal += 1 }
        journal.note(.unshared, page)
        set(page, .unshared)
        forget(page)
    }

    /// A stretch got another backing, frames or zeros. Pages that had another one have private copies over it now; those that
    /// were merged gave up their sharing for that.
    /// - Returns: what the mapping hides of home.
    func absorb(_ pages: Range<Int>, over first: PageBacking) -> [Range<Int>] {
        let hidden = pagesAtHome(pages)
        for page in pages where backing(page) != first.advanced(by: page - pages.lowerBound) {
            let givesUp = isGivenUp(page) || isMerged(page)
            if isMerged(page) { forget(page) }
            set(page, .unshared)
            setGivenUp(page, givesUp)
            setOrphan(page, false)
            journal.note(.absorbed, page)
        }
        setBacking(pages, first)
        return hidden
    }

    /// Pages are home again, on purpose.
    /// - Parameter isHole: whether the memory file has nothing for a page that was zero.
    func rehome(_ pages: Range<Int>, isHole: (Int) -> Bool) {
        setBacking(pages, .home)
        for page in pages {
            forget(page)
            journal.note(.rehomed, page)
            set(page, kind(page) == .zero && isHole(page) ? .untouched : .home)
            setOrphan(page, false)
        }
    }

    /// A mapping failed, and home took its place. Allocates nothing, for windows: what the store counts of these pages has to be
    /// forgotten afterwards, as of all that could not be mapped.
    func fallHome(_ pages: Range<Int>) {
        setBacking(pages, .home)
        for page in pages {
            set(page, .home)
            setOrphan(page, false)
        }
    }

    /// The sharing of a page that went home was given up for fewer mappings.
    func giveUp(_ page: Int) {
        precondition(kind(page) == .home, "a page at home")
        setGivenUp(page, true)
    }

    /// Mappings are no longer scarce: the page may be shared again.
    func wantAgain(_ page: Int) { setGivenUp(page, false) }

    // MARK: verbs: the store

    /// The store has recorded what the page holds: nobody else has it now.
    func noteSighting(_ page: Int) {
        setKnown(page, true)
        setGivenUp(page, false)
        journal.note(.sighted, page)
    }

    /// The store counts a reference for the page.
    func noteReference(_ page: Int) { setKnown(page, true) }

    /// The store knows nothing of the page, and said so.
    func noteUnknown(_ page: Int) { setKnown(page, false) }

    /// Has the store forget the page, soon.
    func forget(_ page: Int) {
        guard isKnown(page) else { return }
        journal.note(.released, page)
        setKnown(page, false)
        removals.insert(page)
    }

    /// The store is lost: mappings stay, their references are nobody's.
    func loseStore() {
        removals.removeAll()
        for page in 0..<count {
            setKnown(page, false)
            setSingleMapperRounds(page, 0)
            if case .frame = backing(page) { setOrphan(page, true) }
        }
    }

    // MARK: frames without another mapper

    static let mostRounds = 255
    /// How often in a row the page's frame was found to have no other mapper.
    func singleMapperRounds(_ page: Int) -> Int { Int(rounds[page]) }
    func setSingleMapperRounds(_ page: Int, _ value: Int) {
        let old = singleMapperRounds(page)
        if value == old { return }
        if old == 0 { singleMapperCount += 1 }
        if value == 0 { singleMapperCount -= 1 }
        rounds[page] = UInt8(min(value, Self.mostRounds))
    }

    // MARK: state

    private func set(_ page: Int, _ kind: Kind) {
        let old = states[page]
        population[Int(old & Flag.kind)] -= 1
        population[Int(kind.rawValue)] += 1
        if old & Flag.known != 0 {
            known[Int(old & Flag.kind)] -= 1
            known[Int(kind.rawValue)] += 1
        }
        setGivenUp(page, false)
        states[page] = states[page] & ~Flag.kind | kind.rawValue
    }

    private func setGivenUp(_ page: Int, _ value: Bool) {
        if value == isGivenUp(page) { return }
        givenUpCount += value ? 1 : -1
        setFlag(page, Flag.givenUp, value)
    }

    private func setKnown(_ page: Int, _ value: Bool) {
        if value == isKnown(page) { return }
        known[Int(states[page] & Flag.kind)] += value ? 1 : -1
        setFlag(page, Flag.known, value)
    }

    private func setOrphan(_ page: Int, _ value: Bool) {
        if value == isOrphan(page) { return }
        orphanCount += value ? 1 : -1
        setFlag(page, Flag.orphan, value)
    }

    private func setFlag(_ page: Int, _ flag: UInt8, _ value: Bool) {
        states[page] = value ? states[page] | flag : states[page] & ~flag
    }

    private func pagesAtHome(_ pages: Range<Int>) -> [Range<Int>] {
        runs(of: pages.lazy.filter { self.places[$0] == 0 })
    }

    // MARK: backing

    /// Mappings that a change of backing would add (or remove, if negative).
    func growth(_ pages: Range<Int>, _ first: PageBacking) -> Int {
        var after = 0
        if pages.lowerBound > 0, !backing(pages.lowerBound - 1).isContinued(by: first) { after += 1 }
        let last = first.advanced(by: pages.count - 1)
        if pages.upperBound < count, !last.isContinued(by: backing(pages.upperBound)) { after += 1 }
        return after - boundaryCount(pages)
    }

    private func setBacking(_ pages: Range<Int>, _ first: PageBacking) {
        boundaries -= boundaryCount(pages)
        for page in pages {
            switch first {
            case .home: places[page] = 0
            case .zero: places[page] = Self.zeroPlace
            case .frame(let location):
                let place = location.advanced(by: page - pages.lowerBound)
                precondition(place.value < FrameLocation.end, "a place in the store")
                places[page] = UInt32(place.value) + 1
            }
        }
        boundaries += boundaryCount(pages)
    }

    /// Inside the range, and at its ends.
    private func boundaryCount(_ pages: Range<Int>) -> Int {
        var found = 0
        for page in max(pages.lowerBound, 1)..<min(pages.upperBound + 1, count)
        where !backing(page - 1).isContinued(by: backing(page)) { found += 1 }
        return found
    }
}

extension PageBacking {
    /// Of the page so many pages behind, in one mapping.
    func advanced(by pages: Int) -> PageBacking {
        if case .frame(let location) = self { .frame(location.advanced(by: pages)) } else { self }
    }

    /// Whether one mapping can hold a page with this backing and the next one with that.
    func isContinued(by next: PageBacking) -> Bool {
        switch (self, next) {
        case (.home, .home), (.zero, .zero): true
        case (.frame(let first), .frame(let second)): first.value + 1 == second.value
        default: false
        }
    }
}
