/// Which of the pages that were written are to be watched from now on: bookkeeping alone, no page is touched here.
///
/// To watch a page costs the guest a write fault at its next write there, in vain if that write comes soon. Memory is written
/// in neighbourhoods, so it is taken in *blocks* of 64 pages:
///
/// ```
///  trusted --many of its watched pages were written--> hot --its sentinel stayed clean--> on trial: all are watched
///     ^                                                 ^ \_ the sentinel was written: a longer wait _/      |   |
///     |                                                 \------------- many of them were written -----------/    |
///     \----------------------------------------------------------------------- they stayed clean ---------------/
/// ```
/// - A trusted block's pages are all watched at once.
/// - Of a hot block a single page, the *sentinel*, is watched first, another one each time; after each that is written, the
///   block is left alone for twice as long.
/// - While the guest writes much that is new, it is sentinels alone that are watched, of trusted blocks as well: they tell what
///   is hot before more is paid for that.
/// - Faults are counted, and paid from a *budget*. When that is used up, one fault makes a block hot, and no trial begins.
///
/// Every page's turn comes some time, whatever the others do: there are always some sentinels, and chance says which block is
/// first and which page is its sentinel.
struct WatchPlan {
    /// Faults in a harvest for which a block becomes hot, as long as the budget lasts.
    private static let faultsOfHotBlock = 16
    /// Seconds of income that can be saved up, and owed.
    private static let savedSeconds: Double = 1
    private static let owedSeconds: Double = 5
    /// Exponents of the longest wait: of any block, and while the guest is busy, which tells little about later.
    private static let longestWait: UInt8 = 5
    private static let longestBusyWait: UInt8 = 2
    /// What a block's probe is when all of its pages are on trial; 1...64: its sentinel; 0: nothing.
    private static let trial: UInt8 = 65

    /// What all blocks have in common at a harvest.
    struct Harvest {
        /// Since the last one, in shortest intervals between passes, at least one; and how long such an interval is.
        var units = 1
        var secondsPerUnit: Double
        /// Faults that the guest may suffer in a second.
        var faultsPerSecond: Double
        /// Exponent of the longest wait.
        var waitLimit: UInt8
        /// The guest writes much that is new.
        var isBusy = false
    }

    /// By block: exponent of its wait, 0 if trusted; units that are left of it; what was watched to learn about it.
    private var heats: [UInt8]
    private var waits: [UInt8]
    private var probes: [UInt8]
    /// Faults that may still be caused; below zero when there were too many.
    private(set) var budget: Double = .infinity
    private var current = Harvest(secondsPerUnit: 0, faultsPerSecond: 0, waitLimit: 0)
    /// Pages on trial, and sentinels of hot blocks, that may still be watched at this harvest.
    private var trials = 0
    private var sentinels = 0
    /// A linear congruential sequence: no pattern of writes stays in step with it.
    private var random: UInt64 = 1

    init(blocks: Int) {
        heats = [UInt8](repeating: 0, count: blocks)
        waits = heats
        probes = heats
    }

    static let bytesPerBlock = 3

    func isHot(_ block: Int) -> Bool { heats[block] > 0 }
    /// Its sentinel stayed clean, and its other pages are watched until the next harvest. They are to be looked at together,
    /// so that they become few mappings.
    func isOnTrial(_ block: Int) -> Bool { probes[block] == Self.trial }

    /// Begins a harvest.
    /// - Parameter dirty: what is reported as written.
    /// - Returns: the block with which to begin.
    mutating func begin(_ harvest: Harvest, _ dirty: [UInt64]) -> Int {
        current = harvest
        let income = harvest.faultsPerSecond * harvest.secondsPerUnit * Double(harvest.units)
        budget = min(budget + income, max(harvest.faultsPerSecond * Self.savedSeconds, 64))
        budget = max(budget, -harvest.faultsPerSecond * Self.owedSeconds)
        var (tested, lost) = (0, 0)
        for block in probes.indices where probes[block] > 0 && probes[block] < Self.trial {
            tested += 1
            if wasWritten(block, dirty[block]) { lost += 1 }
        }
        // As many pages as the budget can bear if they do as the sentinels did: where those stay clean, the guest has calmed down.
        let atStake = Double(lost + 1) / Double(tested + 1)
        trials = Int(min(max(budget / atStake, 0), 1e9))
        sentinels = max(1, Int(min(income / 2 / atStake, 1e9)))
        return probes.isEmpty ? 0 : Int(next() % UInt64(probes.count))
    }

    /// The block's sentinel is among these pages.
    private func wasWritten(_ block: Int, _ dirty: UInt64) -> Bool {
        (1...64).contains(probes[block]) && dirty & 1 << UInt64(probes[block] - 1) != 0
    }

    /// Asked of each block once in a harvest.
    /// - Parameters:
    ///   - candidates: reported pages of the block that do not wait for reasons of their own.
    ///   - dirty: all its reported pages.
    ///   - faults: how many of those the guest wrote for the first time since they were cleared.
    /// - Returns: the pages to be watched.
    mutating func choose(_ block: Int, _ candidates: UInt64, dirty: UInt64, faults: Int) -> UInt64 {
        budget -= Double(faults)
        let isLost = wasWritten(block, dirty)
        let probe = probes[block]
        probes[block] = 0
        if current.faultsPerSecond == .infinity, !current.isBusy { return candidates }
        if waits[block] > 0 {
            // Faults that come now are of pages that were watched before it became hot.
            waits[block] -= UInt8(min(Int(waits[block]), current.units))
            return 0
        }
        if isLost || faults >= (budget < 0 ? 1 : Self.faultsOfHotBlock) {
            heat(block)
            return 0
        }
        if probe == Self.trial { heats[block] = 0 }
        if candidates == 0 { return 0 }
        if !current.isBusy {
            // Behind a sentinel that stayed clean.
            let follows = probe > 0 && probe < Self.trial
            if heats[block] == 0 || follows && candidates.nonzeroBitCount <= trials {
                if heats[block] > 0 { trials -= candidates.nonzeroBitCount }
                if follows { probes[block] = Self.trial }
                return candidates
            }
        }
        return watchSentinel(block, candidates)
    }

    /// Faults that the guest suffered besides those of a harvest.
    mutating func pay(_ faults: Int) { budget -= Double(faults) }

    private mutating func heat(_ block: Int) {
        let longest = current.isBusy ? Self.longestBusyWait : Self.longestWait
        heats[block] = max(1, min(heats[block] + 1, current.waitLimit, longest))
        waits[block] = UInt8(1 << Int(heats[block]) - 1)
    }

    private mutating func watchSentinel(_ block: Int, _ candidates: UInt64) -> UInt64 {
        if heats[block] > 0 {
            guard sentinels > 0 else { return 0 }
            sentinels -= 1
        }
        // The first candidate at or behind some place, in a ring.
        let behind = candidates & ~0 << (next() & 63)
        let sentinel = (behind != 0 ? behind : candidates).trailingZeroBitCount
        probes[block] = UInt8(sentinel + 1)
        return 1 << UInt64(sentinel)
    }

    private mutating func next() -> UInt64 {
        random = random &* 6_364_136_223_846_793_005 &+ 1_442_695_040_888_963_407
        return random >> 33
    }
}
