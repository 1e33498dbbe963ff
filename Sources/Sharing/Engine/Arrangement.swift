// Which parts of a guest's memory are mapped to what, so that there are few mappings.
//
// A page that is the guest's own may live in the home file, or as a private copy over a mapping of zeros or of frames: it
// costs the same memory. So stretches of frames and of zeros can run across such pages, and which is best is a path
// through the pages: a territory for each, every change from one to another costing a mapping. The cheapest path is found
// exactly, page after page (the Viterbi algorithm), from what each territory costs each page.

/// What a page's part of the mapping is backed by.
enum Territory: Equatable {
    case home
    case zero
    /// Frames whose numbers are the pages' plus this.
    case frames(Int)

    init(_ backing: PageRecords.Backing, page: Int) {
        self =
            switch backing {
            case .home: .home
            case .zero: .zero
            case .frame(let location): .frames(Int(location.value) - page)
            }
    }

    func backing(of page: Int) -> PageRecords.Backing {
        switch self {
        case .home: .home
        case .zero: .zero
        case .frames(let delta): .frame(FrameLocation(UInt64(page + delta)))
        }
    }
}

/// The best territories for a range of pages.
struct Arrangement {
    struct Stretch: Equatable {
        var pages: Range<Int>
        var territory: Territory
    }
    /// Parts of a page's memory in which costs are counted.
    static let unit = 64
    /// Copying one page that is the guest's own.
    private static let moveCost = 1
    private static let impossible = 1 << 40
    /// Home, zero, and the frames of so many numberings at a time.
    private static let slots = 3
    private static let states = 2 + slots

    private(set) var stretches: [Stretch] = []
    /// Pages that need memory of their own then, and need none now.
    private(set) var givenUp = 0
    /// Seams inside the range and at its start, as it is and as it would be.
    private(set) var seamsBefore = 0
    private(set) var seamsAfter = 0

    /// The arrangement with the fewest mappings that gives up at most `allowance` pages; none if that is negative.
    /// - Parameters:
    ///   - prices: what a mapping is worth, in units, the preferred first; with the last, nothing is given up.
    ///   - isFixed: a page whose mapping must not change.
    static func best(
        _ records: PageRecords, _ pages: Range<Int>, prices: [Int], allowance: Int, isFixed: (Int) -> Bool
    ) -> Arrangement {
        // Nothing may be given up: the last price alone is for that.
        for (index, price) in prices.enumerated() where allowance >= 0 || index == prices.count - 1 {
            let isLast = index == prices.count - 1
            let plan = Arrangement(
                records, pages, price: price, giveUpCost: isLast ? impossible : unit, isFixed: isFixed)
            if isLast || plan.givenUp <= allowance { return plan }
        }
        return Arrangement(records, pages, price: unit, giveUpCost: impossible, isFixed: isFixed)
    }

    /// - Parameter giveUpCost: of a page that needs memory of its own then; in units.
    init(
        _ records: PageRecords, _ pages: Range<Int>, price: Int, giveUpCost: Int, isFixed: (Int) -> Bool
    ) {
        var path = Path(count: pages.count)
        var deltas = [Int?](repeating: nil, count: Self.slots)
        var costs = [Int](repeating: price, count: Self.states)
        if pages.lowerBound > 0 {
            let before = Territory(records.backing(pages.lowerBound - 1), page: pages.lowerBound - 1)
            if case .frames(let delta) = before { deltas[0] = delta }
            costs[Self.state(of: before, deltas) ?? 0] = 0
        }
        var local = [Int](repeating: 0, count: Self.states)
        for page in pages {
            let index = page - pages.lowerBound
            let current = Territory(records.backing(page), page: page)
            if case .frames(let delta) = current, Self.state(of: current, deltas) == nil {
                let slot = Self.leastWorth(deltas, costs)
                path.replaced.append((index, slot, deltas[slot]))
                deltas[slot] = delta
                // Before the first page there is nothing to change from.
                costs[2 + slot] = page == 0 ? price : Self.impossible
            }
            let own = Self.state(of: current, deltas) ?? 0
            Self.price(records.kind(page), own, giveUpCost, isFixed(page), &local)
            var best = 0
            for state in 1..<Self.states where costs[state] < costs[best] { best = state }
            let change = costs[best] + price
            path.best[index] = UInt8(best)
            for state in 0..<Self.states {
                // A numbering that no page has asked for yet.
                if state >= 2, deltas[state - 2] == nil {
                    costs[state] = Self.impossible
                    continue
                }
                if change < costs[state] {
                    costs[state] = change
                    path.changed[index] |= 1 << UInt8(state)
                }
                costs[state] = min(costs[state] + local[state], Self.impossible)
            }
        }
        follow(path, pages, deltas, costs)
        count(records, pages)
    }

    /// The state that stands for a territory; nil for frames of a numbering that has no slot.
    private static func state(of territory: Territory, _ deltas: [Int?]) -> Int? {
        switch territory {
        case .home: 0
        case .zero: 1
        case .frames(let delta): deltas.firstIndex(of: delta).map { 2 + $0 }
        }
    }

    /// The slot that the next numbering takes.
    private static func leastWorth(_ deltas: [Int?], _ costs: [Int]) -> Int {
        if let free = deltas.firstIndex(of: nil) { return free }
        var slot = 0
        for other in 1..<slots where costs[2 + other] > costs[2 + slot] { slot = other }
        return slot
    }

    /// What each territory costs a page.
    private static func price(
        _ kind: PageRecords.Kind, _ own: Int, _ giveUpCost: Int, _ isFixed: Bool, _ local: inout [Int]
    ) {
        for state in 0..<states {
            local[state] =
                switch (kind, state) {
                case (_, own): 0
                case _ where isFixed: impossible
                case (.home, _), (.unshared, _): moveCost
                // A page of zeros, if it is read.
                case (.untouched, 1): moveCost
                case (.untouched, _), (.zero, _), (.mapped, _): giveUpCost
                }
        }
    }

    /// How the cheapest way to each state came about.
    private struct Path {
        /// The cheapest state before each page, and for which states it paid to come from there.
        var best: [UInt8]
        var changed: [UInt8]
        /// When a slot got another numbering, and which it had.
        var replaced: [(index: Int, slot: Int, old: Int?)] = []
        init(count: Int) {
            best = [UInt8](repeating: 0, count: count)
            changed = best
        }
    }

    /// Walks back from the cheapest end.
    private mutating func follow(
        _ path: Path, _ pages: Range<Int>, _ last: [Int?], _ costs: [Int]
    ) {
        var deltas = last
        var replaced = path.replaced[...]
        var state = costs.indices.min { costs[$0] < costs[$1] } ?? 0
        for page in pages.reversed() {
            let index = page - pages.lowerBound
            let territory: Territory =
                switch state {
                case 0: .home
                case 1: .zero
                default: .frames(deltas[state - 2] ?? 0)
                }
            if let last = stretches.last, last.territory == territory {
                stretches[stretches.count - 1].pages = page..<last.pages.upperBound
            } else {
                stretches.append(Stretch(pages: page..<page + 1, territory: territory))
            }
            if path.changed[index] & (1 << UInt8(state)) != 0 { state = Int(path.best[index]) }
            while let event = replaced.last, event.index == index {
                deltas[event.slot] = event.old
                replaced = replaced.dropLast()
            }
        }
        stretches.reverse()
    }

    private mutating func count(_ records: PageRecords, _ pages: Range<Int>) {
        var before =
            pages.lowerBound > 0
            ? Territory(records.backing(pages.lowerBound - 1), page: pages.lowerBound - 1) : nil
        seamsAfter = stretches.count - (pages.lowerBound == 0 || stretches.first?.territory == before ? 1 : 0)
        for stretch in stretches {
            for page in stretch.pages {
                let current = Territory(records.backing(page), page: page)
                if before != current, page > 0 { seamsBefore += 1 }
                before = current
                guard current != stretch.territory else { continue }
                switch records.kind(page) {
                case .untouched: givenUp += stretch.territory == .zero ? 0 : 1
                case .zero, .mapped: givenUp += 1
                case .home, .unshared: break
                }
            }
        }
    }
}
