internal import FrameStore
internal import GuestMemory
internal import LinuxHost

/// What the engine knows of each guest page: 7 bytes a page, in memory that costs nothing where nothing is known.
///
/// ```
///  untouched -> home -> mapped -> unshared -> mapped ...
///                 \-> zero -> unshared             (home again by rehoming)
/// ```
/// *home*: in the guest's own memory file. *mapped*: a private mapping of a frame, unwritten. *zero*: reads give the
/// kernel's zero page, unwritten. *unshared*: a private copy over either. A page is *known* while the store has a sighting
/// of it or counts a reference for it.
final class PageRecords {
    enum Kind: UInt8 {
        case untouched = 0
        case home
        case mapped
        case zero
        case unshared
    }

    typealias Backing = PageBacking

    let count: Int
    private let places: LazyArray<UInt32>
    private let states: LazyArray<UInt8>
    private let backoffs: LazyArray<UInt8>
    private let waits: LazyArray<UInt8>
    /// Pages by kind.
    private(set) var population = [Int](repeating: 0, count: 8)
    /// Places where the backing is not continued from one page to the next: mappings, less one.
    private(set) var seams = 0
    /// Pages by kind that are known.
    private var known = [Int](repeating: 0, count: 8)

    /// Pages whose frames were found to have no other mapper.
    private(set) var lonelyCount = 0

    private enum Flag {
        static let kind: UInt8 = 0x07
        static let known: UInt8 = 0x08
        static let orphan: UInt8 = 0x40
        static let givenUp: UInt8 = 0x80
    }
    /// Of a page at home it is 0, of one backed by a frame the frame's location and 1.
    private static let zeroPlace = UInt32.max

    init(count: Int) throws(LinuxError) {
        self.count = count
        places = try LazyArray(count: count)
        states = try LazyArray(count: count)
        backoffs = try LazyArray(count: count)
        waits = try LazyArray(count: count)
        population[Int(Kind.untouched.rawValue)] = count
    }

    /// Bytes of bookkeeping for each page that is tracked.
    static let bytesPerPage = 7

    func kind(_ page: Int) -> Kind { Kind(rawValue: states[page] & Flag.kind) ?? .untouched }

    func setKind(_ page: Int, _ kind: Kind) {
        let old = states[page]
        population[Int(old & Flag.kind)] -= 1
        population[Int(kind.rawValue)] += 1
        if old & Flag.known != 0 {
            known[Int(old & Flag.kind)] -= 1
            known[Int(kind.rawValue)] += 1
        }
        states[page] = old & ~(Flag.kind | Flag.givenUp) | kind.rawValue
    }

    func count(of kind: Kind) -> Int { population[Int(kind.rawValue)] }

    /// The store has a sighting of it, or counts a reference for it.
    func isKnown(_ page: Int) -> Bool { states[page] & Flag.known != 0 }
    func setKnown(_ page: Int, _ value: Bool) {
        if value != isKnown(page) { known[Int(states[page] & Flag.kind)] += value ? 1 : -1 }
        set(page, Flag.known, value)
    }
    /// Pages that were sighted and are shared with nobody.
    var sightedCount: Int { known[Int(Kind.home.rawValue)] + known[Int(Kind.unshared.rawValue)] }
    /// Its sharing was given up for fewer mappings; until it is anything else.
    func isGivenUp(_ page: Int) -> Bool { states[page] & Flag.givenUp != 0 }
    func setGivenUp(_ page: Int, _ value: Bool) { set(page, Flag.givenUp, value) }
    /// Its backing belongs to a store that is lost.
    func isOrphan(_ page: Int) -> Bool { states[page] & Flag.orphan != 0 }
    func setOrphan(_ page: Int, _ value: Bool) { set(page, Flag.orphan, value) }

    private func set(_ page: Int, _ flag: UInt8, _ value: Bool) {
        states[page] = value ? states[page] | flag : states[page] & ~flag
    }

    // MARK: volatility

    /// Units of time to wait before the page is watched again.
    func wait(_ page: Int) -> UInt8 { waits[page] }
    func tick(_ page: Int, by units: Int = 1) {
        waits[page] -= UInt8(min(Int(waits[page]), units))
    }

    /// The page was written while it was watched: look less often.
    func backOff(_ page: Int, limit: UInt8) {
        let exponent = min(Int(backoffs[page] & Self.exponent) + 1, Int(limit), 8)
        backoffs[page] = backoffs[page] & ~Self.exponent | UInt8(exponent)
        waits[page] = UInt8((1 << exponent) - 1)
    }
    /// The page stayed clean: trust it a little more.
    func settle(_ page: Int) {
        if backoffs[page] & Self.exponent > 0 { backoffs[page] -= 1 }
    }
    /// The lower bits of a back-off; above them is how often a page was found lonely.
    private static let exponent: UInt8 = 0x0f

    // MARK: company

    static let mostLonelyRounds = 15
    /// How often the page's frame was found to have no other mapper.
    func lonelyRounds(_ page: Int) -> Int { Int(backoffs[page] >> 4) }
    func setLonelyRounds(_ page: Int, _ rounds: Int) {
        let old = lonelyRounds(page)
        if rounds == old { return }
        if old == 0 { lonelyCount += 1 }
        if rounds == 0 { lonelyCount -= 1 }
        backoffs[page] = backoffs[page] & Self.exponent | UInt8(rounds) << 4
    }

    // MARK: backing

    func backing(_ page: Int) -> Backing {
        switch places[page] {
        case 0: .home
        case Self.zeroPlace: .zero
        case let place: .frame(FrameLocation(UInt64(place - 1)))
        }
    }

    /// Records what a range is backed by now, and counts mappings.
    func setBacking(_ pages: Range<Int>, _ first: Backing) {
        seams -= seamCount(pages)
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
        seams += seamCount(pages)
    }

    /// Mappings that a change of backing would add (or remove, if negative).
    func growth(_ pages: Range<Int>, _ backing: Backing) -> Int {
        var after = 0
        if pages.lowerBound > 0, !continues(self.backing(pages.lowerBound - 1), backing) { after += 1 }
        if pages.upperBound < count {
            let last: Backing =
                if case .frame(let location) = backing { .frame(location.advanced(by: pages.count - 1)) } else
                { backing }
            if !continues(last, self.backing(pages.upperBound)) { after += 1 }
        }
        return after - seamCount(pages)
    }

    private func seamCount(_ pages: Range<Int>) -> Int {
        var found = 0
        for page in max(pages.lowerBound, 1)..<min(pages.upperBound + 1, count)
        where !continues(backing(page - 1), backing(page)) { found += 1 }
        return found
    }

    private func continues(_ left: Backing, _ right: Backing) -> Bool {
        switch (left, right) {
        case (.home, .home), (.zero, .zero): true
        case (.frame(let first), .frame(let second)): first.value + 1 == second.value
        default: false
        }
    }
}
