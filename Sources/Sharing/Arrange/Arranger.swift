internal import FrameStore
internal import GuestMemory
internal import LinuxHost

/// Step 7 of a pass: what was merged bit by bit is put together again, in pauses, once the guest rests: fewer mappings.
final class Arranger {
    /// Pages that are arranged at a time, and in one pause.
    private static let sliceLength = 1 << 15
    private static let chunkLength = 1024
    /// Pages that are in place already and are remapped all the same, rather than that what is on either side takes a pause
    /// each.
    private static let bridge = 16
    /// Private pages that are copied to join pieces, for each mapping less.
    private static let copiesPerPiece = 512
    /// Pauses in a pass at most.
    private static let pausesPerPass = 32
    /// Wall time, nanoseconds, after which the rest waits for the next pass: the store must hear from us in between.
    private static let longestMove: UInt64 = 200_000_000

    private let window: Window
    private let pages: GuestPages
    private let tracker: DirtyTracker
    private let rehomer: Rehomer
    private let budget: ProcessBudget
    private let inFlight: InFlightCounts
    private let conditions: PassConditions
    private let journal: EngineJournal
    private var schedule = ArrangementSchedule()
    private var mapping: any GuestMapping { window.mapping }

    init(
        _ window: Window, _ pages: GuestPages, _ tracker: DirtyTracker, _ rehomer: Rehomer,
        _ budget: ProcessBudget, _ inFlight: InFlightCounts, _ conditions: PassConditions,
        _ journal: EngineJournal
    ) {
        (self.window, self.pages, self.tracker, self.rehomer) = (window, pages, tracker, rehomer)
        (self.budget, self.inFlight, self.conditions, self.journal) = (budget, inFlight, conditions, journal)
    }

    /// Much changed in this pass.
    func noteChange(_ pass: Int) { schedule.noteChange(pass) }

    /// Arranges a slice of memory if that is due.
    /// - Parameters:
    ///   - pass: its number.
    ///   - activity: pages looked at, merged, accounted for in it.
    /// - Returns: whether there was something to do.
    func arrange(_ pass: Int, activity: Int) -> Bool {
        let policy = conditions.policy
        guard conditions.fatal == nil, policy.arrangementGain > 0, pages.orphanCount == 0, budget.isKnown,
            schedule.isDue(situation(pass, activity), policy), var round = schedule.round
        else { return false }
        guard budget.hasMemory(for: .arrangement) else { return false }
        let first = round.slice * Self.sliceLength
        let slice = first..<min(first + Self.sliceLength, pages.count)
        let isDone: Bool
        switch round.step {
        case .moving: isDone = arrange(slice, &round)
        case .joining: isDone = join(slice, &round)
        }
        if isDone {
            round.cursor = 0
            if round.step == .moving, round.joins {
                round.step = .joining
            } else {
                round.slice += 1
                round.step = .moving
                round.isWorthIt = false
            }
        }
        schedule.update(round)
        if round.slice * Self.sliceLength >= pages.count {
            budget.recount()
            schedule.end(situation(pass, activity), policy)
            reconsiderGivenUp()
        }
        return true
    }

    /// What was given up while mappings were scarce is wanted again when they are not: of each two mappings at most, no more pages
    /// than are to be had without making mappings dearer.
    private func reconsiderGivenUp() {
        var room = budget.cheapMappings / 2
        if pages.givenUpCount == 0 || room <= 0 { return }
        for page in 0..<pages.count where pages.isGivenUp(page) && room > 0 {
            pages.wantAgain(page)
            tracker.watch(page)
            room -= 1
        }
    }

    private func situation(_ pass: Int, _ activity: Int) -> ArrangementSchedule.Situation {
        ArrangementSchedule.Situation(
            pass: pass, activity: activity, boundaries: pages.boundaries, unjoined: budget.unjoinedMappings,
            price: budget.price.mapping)
    }

    /// Moves what is in a wrong place.
    /// - Returns: whether the slice is as it should be, or cannot be better now.
    private func arrange(_ slice: Range<Int>, _ round: inout ArrangementSchedule.Round) -> Bool {
        let layout = PageLayout(pages, slice) { inFlight.count($0) > 0 }
        let plan = Arrangement(layout, budget.price)
        if !round.isWorthIt {
            guard layout.boundaries - plan.boundaries >= max(1, layout.boundaries / 16) else { return true }
            round.isWorthIt = true
        }
        let starts = round.joins ? mappingStarts(slice, round) : []
        let chunks = plan.stretches.flatMap { stretch in
            // Where pieces are to be joined, all of it takes its place on the way.
            (pieces(of: stretch, starts).map { [$0] } ?? wrongParts(of: stretch))
                .flatMap { split($0, for: stretch.target) }
        }
        return move(chunks, &round)
    }

    /// Joins what the kernel still has in pieces.
    private func join(_ slice: Range<Int>, _ round: inout ArrangementSchedule.Round) -> Bool {
        let starts = mappingStarts(slice, round)
        var chunks: [Chunk] = []
        var start = max(slice.lowerBound, round.cursor)
        while start < slice.upperBound {
            let target = MappingTarget(pages.backing(start), page: start)
            var end = start + 1
            while end < slice.upperBound, MappingTarget(pages.backing(end), page: end) == target { end += 1 }
            if let part = pieces(of: Arrangement.Stretch(pages: start..<end, target: target), starts) {
                chunks += split(part, for: target)
            }
            start = end
        }
        return move(chunks, &round)
    }

    /// Where the kernel's mappings begin in what is left of a slice.
    private func mappingStarts(_ slice: Range<Int>, _ round: ArrangementSchedule.Round) -> [Int] {
        let first = max(slice.lowerBound + 1, round.cursor)
        return first < slice.upperBound ? mapping.mappingStarts(in: first..<slice.upperBound) : []
    }

    private func isRight(_ page: Int, _ target: MappingTarget) -> Bool {
        MappingTarget(pages.backing(page), page: page) == target
    }

    /// What has to be mapped anew to join a stretch that the kernel has in pieces: it leaves neighbours apart that have
    /// private pages of their own each, but a new mapping it joins with its left neighbour. So that is all that follows
    /// the first piece.
    /// - Returns: nil if there are no pieces, or too many pages would have to be copied.
    private func pieces(of stretch: Arrangement.Stretch, _ starts: [Int]) -> Range<Int>? {
        let (range, target) = (stretch.pages, stretch.target)
        if target == .home { return nil }
        if conditions.policy.arrangesAll { return range }
        let cuts = starts[Self.index(range.lowerBound + 1, in: starts)...]
            .prefix { $0 < range.upperBound }
            .filter { isRight($0 - 1, target) && isRight($0, target) }
        guard let cut = cuts.first else { return nil }
        let first = range.prefix { $0 < cut }.first { !isRight($0, target) } ?? cut
        let copies = (first..<range.upperBound).count { pages.kind($0) == .unshared }
        return copies <= cuts.count * Self.copiesPerPiece ? first..<range.upperBound : nil
    }

    /// Of the first element that is not less.
    private static func index(_ value: Int, in sorted: [Int]) -> Int {
        var (low, high) = (0, sorted.count)
        while low < high {
            let middle = (low + high) / 2
            if sorted[middle] < value { low = middle + 1 } else { high = middle }
        }
        return low
    }

    /// The parts of a stretch that are not yet as they should be.
    private func wrongParts(of stretch: Arrangement.Stretch) -> [Range<Int>] {
        var found: [Range<Int>] = []
        var start: Int?
        var end = 0
        for page in stretch.pages where !isRight(page, stretch.target) {
            // What is home already cannot go there.
            if let first = start, page - end > (stretch.target == .home ? 0 : Self.bridge) {
                found.append(first..<end)
                start = nil
            }
            start = start ?? page
            end = page + 1
        }
        if let start { found.append(start..<end) }
        return found
    }

    // MARK: moving

    private struct Chunk {
        var pages: Range<Int>
        var target: MappingTarget
    }

    /// Parts that a pause and the buffer allow.
    private func split(_ range: Range<Int>, for target: MappingTarget) -> [Chunk] {
        var found: [Chunk] = []
        var start = range.lowerBound
        var kept = 0
        for page in range {
            let isKept = isKept(page, in: target)
            if page - start == Self.chunkLength || isKept && kept == mapping.copyLimit / 2 {
                found.append(Chunk(pages: start..<page, target: target))
                (start, kept) = (page, 0)
            }
            if isKept { kept += 1 }
        }
        found.append(Chunk(pages: start..<range.upperBound, target: target))
        return found
    }

    /// Whether a page has memory of its own over a target.
    private func isKept(_ page: Int, in target: MappingTarget) -> Bool {
        switch pages.kind(page) {
        case .home, .unshared, .untouched: true
        case .mapped, .zero: !isRight(page, target)
        }
    }

    /// Moves as many chunks as a pass may, from where the last one stopped.
    /// - Returns: whether none is left.
    private func move(_ chunks: [Chunk], _ round: inout ArrangementSchedule.Round) -> Bool {
        var pauses = 0
        let started = monotonicNanoseconds()
        for chunk in chunks where chunk.pages.lowerBound >= round.cursor {
            if pauses == Self.pausesPerPass || conditions.isTooMuch
                || monotonicNanoseconds() - started > Self.longestMove
            {
                return false
            }
            pauses += 1
            let isMoved =
                chunk.target == .home ? moveHome(chunk.pages) : move(chunk.pages, to: chunk.target)
            if !isMoved { round.isIncomplete = true }
            if conditions.fatal != nil { return true }
            round.cursor = chunk.pages.upperBound
        }
        return true
    }

    /// What the store knew of the pages is forgotten on the way. Shared ones are given up.
    /// - Returns: whether all of them are home.
    private func moveHome(_ range: Range<Int>) -> Bool {
        let own = range.filter { pages.kind($0) == .unshared && !pages.isGivenUp($0) }
        let shared = range.filter { pages.isMerged($0) || pages.isGivenUp($0) }
        let taken = rehomer.rehome(Array(range))
        own.forEach(tracker.watch)
        for page in shared where pages.kind(page) == .home { pages.giveUp(page) }
        return taken == range.count
    }

    /// Replaces the backing of a range in a pause.
    /// - Returns: whether it was done, or will be by itself.
    private func move(_ range: Range<Int>, to target: MappingTarget) -> Bool {
        let backing = target.backing(of: range.lowerBound)
        // Allocated before the pause.
        var kept = range.map { isKept($0, in: target) }
        var isMoved = false
        var fell: MappingFailure?
        window.pausing {
            guard range.allSatisfy({ inFlight.count($0) == 0 }) else { return }
            do throws(MappingFailure) {
                isMoved = try mapping.rearrange(range, backing, keeping: &kept)
            } catch {
                window.note(error)
                fell = error
            }
        }
        // What had a reference maps nothing any more.
        if case .wentHome(let lost, _)? = fell {
            lost.forEach(pages.forget)
            lost.forEach(tracker.watch)
        }
        guard isMoved else { return false }
        journal.count { $0.arrangements += 1 }
        for page in range where !isRight(page, target) {
            switch pages.kind(page) {
            case .home, .unshared: break
            case .untouched: if target == .zero { tracker.watch(page) }
            // Given up: a copy of its own from now on, and looked at again when it was written.
            case .mapped, .zero: tracker.unwatch(page)
            }
        }
        pages.absorb(range, over: backing).forEach(mapping.punchHome)
        return true
    }
}
