import FrameStore

// Which parts of a guest's memory are mapped to what, so that there are few mappings.
//
// A page that is the guest's own may live in the home file, or as a private copy over a mapping of zeros or of frames: it
// costs the same memory. So stretches of frames and of zeros can run across such pages, and which is best is a path
// through the pages: a target for each, every change from one to another costing a mapping. The cheapest path is found
// exactly, stretch after stretch of like pages (the Viterbi algorithm), from what each target costs each page.
//
// A shared page between pages of another target costs two mappings. Its sharing can be given up for them: that is a
// page of memory. What is cheaper, the prices say (`MemoryPrice`): a mapping is worth a page only when few are left.

/// What a page's part of the mapping is backed by.
enum MappingTarget: Equatable {
    case home
    case zero
    /// Frames whose numbers are the pages' plus this.
    case frames(Int)

    init(_ backing: PageBacking, page: Int) {
        self =
            switch backing {
            case .home: .home
            case .zero: .zero
            case .frame(let location): .frames(Int(location.value) - page)
            }
    }

    func backing(of page: Int) -> PageBacking {
        switch self {
        case .home: .home
        case .zero: .zero
        case .frames(let delta): .frame(FrameLocation(UInt64(page + delta)))
        }
    }
}

/// A range of pages as it is, in parts whose pages are alike.
struct PageLayout {
    enum Kind: Equatable {
        /// The guest's own: it may have any target.
        case own
        case untouched
        /// Anywhere else it would need memory of its own.
        case shared
        /// Its mapping must not change.
        case fixed
    }
    struct Part: Equatable {
        var pages: Range<Int>
        var target: MappingTarget
        var kind: Kind
    }

    private(set) var parts: [Part] = []
    /// The target in front of the range.
    let before: MappingTarget?
    /// Boundaries inside the range and at its start.
    private(set) var boundaries = 0

    init(_ records: GuestPages, _ pages: Range<Int>, isFixed: (Int) -> Bool) {
        let first = pages.lowerBound
        before = first > 0 ? MappingTarget(records.backing(first - 1), page: first - 1) : nil
        for page in pages {
            let target = MappingTarget(records.backing(page), page: page)
            let kind: Kind =
                switch records.kind(page) {
                case _ where isFixed(page): .fixed
                case .home, .unshared: .own
                case .untouched: .untouched
                case .mapped, .zero: .shared
                }
            if let last = parts.last, last.target == target, last.kind == kind {
                parts[parts.count - 1].pages = last.pages.lowerBound..<page + 1
                continue
            }
            if let previous = parts.last?.target ?? before, previous != target { boundaries += 1 }
            parts.append(Part(pages: page..<page + 1, target: target, kind: kind))
        }
    }
}

/// The targets for a range of pages that cost the least memory.
struct Arrangement {
    struct Stretch: Equatable {
        var pages: Range<Int>
        var target: MappingTarget
    }
    private static let impossible = 1 << 40
    /// Home, zero, and the frames of so many numberings at a time.
    private static let slots = 3
    private static let states = 2 + slots

    private(set) var stretches: [Stretch] = []
    /// Pages that need memory of their own then, and need none now.
    private(set) var givenUp = 0
    /// Boundaries inside the range and at its start.
    private(set) var boundaries = 0

    init(_ layout: PageLayout, _ price: MemoryPrice) {
        let mappingCost = price.mapping
        var path = Path(count: layout.parts.count)
        var deltas = [Int?](repeating: nil, count: Self.slots)
        // Before the first page there is nothing to change from.
        var costs = [Int](repeating: layout.before == nil ? 0 : mappingCost, count: Self.states)
        if let before = layout.before {
            if case .frames(let delta) = before { deltas[0] = delta }
            costs[Self.state(of: before, deltas) ?? 0] = 0
        }
        for (index, part) in layout.parts.enumerated() {
            if case .frames(let delta) = part.target, Self.state(of: part.target, deltas) == nil {
                let slot = Self.leastWorth(deltas, costs)
                path.replaced.append((index, slot, deltas[slot]))
                deltas[slot] = delta
                costs[2 + slot] = index == 0 && layout.before == nil ? 0 : Self.impossible
            }
            let own = Self.state(of: part.target, deltas) ?? 0
            var best = 0
            for state in 1..<Self.states where costs[state] < costs[best] { best = state }
            let change = costs[best] + mappingCost
            path.best[index] = UInt8(best)
            for state in 0..<Self.states {
                // A numbering that no page has asked for yet, or that has no numbers here.
                if state >= 2, !Self.reaches(deltas[state - 2], part.pages) {
                    costs[state] = Self.impossible
                    continue
                }
                if change < costs[state] {
                    costs[state] = change
                    path.changed[index] |= 1 << UInt8(state)
                }
                let local = state == own ? 0 : Self.cost(part.kind, state)
                costs[state] = min(costs[state] + local * part.pages.count, Self.impossible)
            }
        }
        follow(path, layout, deltas, costs)
        count(layout)
    }

    /// Whether there are places in the store that continue a numbering over these pages.
    private static func reaches(_ delta: Int?, _ pages: Range<Int>) -> Bool {
        guard let delta else { return false }
        return pages.lowerBound + delta >= 0 && pages.upperBound + delta <= Int(FrameLocation.end)
    }

    /// The state that stands for a target; nil for frames of a numbering that has no slot.
    private static func state(of target: MappingTarget, _ deltas: [Int?]) -> Int? {
        switch target {
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

    /// What a target that is not its own costs a page; bytes.
    private static func cost(_ kind: PageLayout.Kind, _ state: Int) -> Int {
        switch (kind, state) {
        case (.fixed, _): impossible
        case (.own, _): MemoryPrice.move
        // A page of zeros, if it is read.
        case (.untouched, 1): MemoryPrice.move
        case (.untouched, _), (.shared, _): MemoryPrice.page
        }
    }

    /// How the cheapest way to each state came about.
    private struct Path {
        /// The cheapest state before each part, and for which states it paid to come from there.
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
    private mutating func follow(_ path: Path, _ layout: PageLayout, _ last: [Int?], _ costs: [Int]) {
        var deltas = last
        var replaced = path.replaced[...]
        var state = costs.indices.min { costs[$0] < costs[$1] } ?? 0
        for (index, part) in layout.parts.enumerated().reversed() {
            let target: MappingTarget =
                switch state {
                case 0: .home
                case 1: .zero
                default: .frames(deltas[state - 2] ?? 0)
                }
            if let last = stretches.last, last.target == target {
                stretches[stretches.count - 1].pages = part.pages.lowerBound..<last.pages.upperBound
            } else {
                stretches.append(Stretch(pages: part.pages, target: target))
            }
            if path.changed[index] & (1 << UInt8(state)) != 0 { state = Int(path.best[index]) }
            while let event = replaced.last, event.index == index {
                deltas[event.slot] = event.old
                replaced = replaced.dropLast()
            }
        }
        stretches.reverse()
    }

    private mutating func count(_ layout: PageLayout) {
        let isContinued = layout.before == nil || stretches.first?.target == layout.before
        boundaries = stretches.count - (isContinued ? 1 : 0)
        var next = 0
        for part in layout.parts {
            // Parts never cross the end of a stretch.
            while stretches[next].pages.upperBound <= part.pages.lowerBound { next += 1 }
            let target = stretches[next].target
            guard target != part.target else { continue }
            switch part.kind {
            case .untouched: givenUp += target == .zero ? 0 : part.pages.count
            case .shared: givenUp += part.pages.count
            case .own, .fixed: break
            }
        }
    }
}
