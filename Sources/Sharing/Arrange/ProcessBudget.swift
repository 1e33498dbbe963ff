internal import GuestMemory

/// What the process can still have, heap and mappings: what cannot be done now is put off and counted, before it has begun.
final class ProcessBudget {
    /// What else the process maps is counted after so long, nanoseconds, or after so many times what the counting took.
    private static let countInterval: UInt64 = 10_000_000_000
    private static let countShare: UInt64 = 200
    /// Mappings made since the last count after which they are counted again.
    private static let countAfter = 256

    private let mapping: any GuestMapping
    private let pages: GuestPages
    private let conditions: PassConditions
    private let journal: EngineJournal
    private let clock: () -> UInt64
    /// Mappings that the kernel has beyond those that the records count: neighbours that it has not joined.
    private(set) var unjoinedMappings = 0
    private var countedAt = 0
    /// Mappings that guest memory may have beside what else the process has; and when they are counted again at the latest.
    private var allowed = Int.max
    private var nextCount: UInt64 = 0

    /// - Parameter clock: monotonic nanoseconds.
    init(
        _ mapping: any GuestMapping, _ pages: GuestPages, _ conditions: PassConditions,
        _ journal: EngineJournal, clock: @escaping () -> UInt64
    ) {
        (self.mapping, self.pages, self.conditions, self.journal) = (mapping, pages, conditions, journal)
        self.clock = clock
        recount()
    }

    /// Mappings of guest memory.
    var mappings: Int { pages.boundaries + unjoinedMappings + 1 }

    /// Whether there is heap for what is about to begin; if not, it is put off.
    func hasMemory(for work: SharingWork) -> Bool {
        if mapping.hasMemory(for: work) { return true }
        journal.count { $0.putOffNoMemory += 1 }
        return false
    }

    /// Not between a call that the kernel refused and the next count: nobody knows then what may be had.
    var isKnown: Bool { allowed > 0 }
    /// What a mapping costs now.
    var price: MemoryPrice { MemoryPrice(mappings: mappings, of: most) }
    /// So many may be made at the least price.
    var cheapMappings: Int { Int(Double(most) * MemoryPrice.plenty) - mappings }
    private var most: Int { min(conditions.policy.mappingLimit, allowed) }

    /// Whether so many mappings more may be made; if not, what they are for is put off.
    func hasRoom(for growth: Int) -> Bool {
        if mappings - 1 + growth < most { return true }
        journal.count { $0.putOffNoMapping += 1 }
        return false
    }

    /// The kernel refused a mapping. There may be no more to be had: nothing further is tried before they are counted.
    func noteFailure() { (allowed, nextCount) = (0, 0) }

    /// Asks the kernel how many mappings there really are: when many were made since the last time, and now and then for what
    /// others made.
    func recountIfDue() {
        let difference = abs(pages.boundaries - countedAt)
        guard
            difference >= Self.countAfter || difference * 8 > pages.boundaries || clock() >= nextCount
        else { return }
        recount()
    }

    func recount() {
        let started = clock()
        countedAt = pages.boundaries
        if let count = mapping.countMappings() {
            unjoinedMappings = max(0, count.guest - 1 - pages.boundaries)
            allowed = count.most
        }
        let now = clock()
        nextCount = now + max(Self.countInterval, (now - started) * Self.countShare)
    }
}
