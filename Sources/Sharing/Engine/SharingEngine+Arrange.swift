internal import GuestMemory
internal import LinuxHost

// What was merged bit by bit is put together again, in pauses, once the guest rests: fewer mappings.
extension SharingEngine {
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
    private static let patience: UInt64 = 200_000_000

    /// Arranges a slice of memory if that is due.
    /// - Returns: whether there was something to do.
    func arrange(_ activity: Int) -> Bool {
        guard fatal == nil, policy.arrangementGain > 0, !hasOrphans,
            schedule.isDue(situation(activity), policy), var round = schedule.round
        else { return false }
        guard hasMemory(for: .arrangement) else { return false }
        let first = round.slice * Self.sliceLength
        let slice = first..<min(first + Self.sliceLength, records.count)
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
        if round.slice * Self.sliceLength >= records.count {
            recountMappings()
            schedule.end(situation(activity), policy)
        }
        return true
    }

    private func situation(_ activity: Int) -> ArrangementSchedule.Situation {
        let slices = (records.count + Self.sliceLength - 1) / Self.sliceLength
        return ArrangementSchedule.Situation(
            pass: statistics.fullScans, activity: activity, seams: records.seams, pieces: surplus,
            target: policy.arrangementTarget * slices)
    }

    /// Moves what is in a wrong place.
    /// - Returns: whether the slice is as it should be, or cannot be better now.
    private func arrange(_ slice: Range<Int>, _ round: inout ArrangementSchedule.Round) -> Bool {
        let terrain = Terrain(records, slice) { inFlight.count($0) > 0 }
        let givenUp = slice.count { records.isGivenUp($0) }
        let allowance = (terrain.sharedPages + givenUp) / policy.arrangementAllowance - givenUp
        // A little below the target, so that it is not passed again soon.
        let plan = Arrangement.best(
            terrain, goal: policy.arrangementTarget * 9 / 10, allowance: round.givesUp ? allowance : 0)
        if !round.isWorthIt {
            guard terrain.seams - plan.seams >= max(1, terrain.seams / 16) else { return true }
            round.isWorthIt = true
        }
        let starts = round.joins ? mappingStarts(slice, round) : []
        let chunks = plan.stretches.flatMap { stretch in
            // Where pieces are to be joined, all of it takes its place on the way.
            (pieces(of: stretch, starts).map { [$0] } ?? wrongParts(of: stretch))
                .flatMap { split($0, for: stretch.territory) }
        }
        return move(chunks, &round)
    }

    /// Joins what the kernel still has in pieces.
    private func join(_ slice: Range<Int>, _ round: inout ArrangementSchedule.Round) -> Bool {
        let starts = mappingStarts(slice, round)
        var chunks: [Chunk] = []
        var start = max(slice.lowerBound, round.cursor)
        while start < slice.upperBound {
            let territory = Territory(records.backing(start), page: start)
            var end = start + 1
            while end < slice.upperBound, Territory(records.backing(end), page: end) == territory { end += 1 }
            if let pages = pieces(of: Arrangement.Stretch(pages: start..<end, territory: territory), starts) {
                chunks += split(pages, for: territory)
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

    /// What has to be mapped anew to join a stretch that the kernel has in pieces: it leaves neighbours apart that have
    /// private pages of their own each, but a new mapping it joins with its left neighbour. So that is all that follows
    /// the first piece.
    /// - Returns: nil if there are no pieces, or too many pages would have to be copied.
    private func pieces(of stretch: Arrangement.Stretch, _ starts: [Int]) -> Range<Int>? {
        let (pages, territory) = (stretch.pages, stretch.territory)
        if territory == .home { return nil }
        if policy.arrangesAll { return pages }
        func isRight(_ page: Int) -> Bool { Territory(records.backing(page), page: page) == territory }
        let cuts = starts[Self.index(pages.lowerBound + 1, in: starts)...]
            .prefix { $0 < pages.upperBound }.filter { isRight($0 - 1) && isRight($0) }
        guard let cut = cuts.first else { return nil }
        let first = pages.prefix { $0 < cut }.first { !isRight($0) } ?? cut
        let copies = (first..<pages.upperBound).count { records.kind($0) == .unshared }
        return copies <= cuts.count * Self.copiesPerPiece ? first..<pages.upperBound : nil
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

    private struct Chunk {
        var pages: Range<Int>
        var territory: Territory
    }

    /// Moves as many chunks as a pass may, from where the last one stopped.
    /// - Returns: whether none is left.
    private func move(_ chunks: [Chunk], _ round: inout ArrangementSchedule.Round) -> Bool {
        var pauses = 0
        let started = monotonicNanoseconds()
        for chunk in chunks where chunk.pages.lowerBound >= round.cursor {
            if pauses == Self.pausesPerPass || isTooMuch || monotonicNanoseconds() - started > Self.patience {
                return false
            }
            pauses += 1
            if !move(chunk.pages, to: chunk.territory) { round.isIncomplete = true }
            if fatal != nil { return true }
            round.cursor = chunk.pages.upperBound
        }
        return true
    }

    /// The parts of a stretch that are not yet as they should be.
    private func wrongParts(of stretch: Arrangement.Stretch) -> [Range<Int>] {
        var found: [Range<Int>] = []
        var start: Int?
        var end = 0
        for page in stretch.pages
        where Territory(records.backing(page), page: page) != stretch.territory {
            // What is home already cannot go there.
            if let first = start, page - end > (stretch.territory == .home ? 0 : Self.bridge) {
                found.append(first..<end)
                start = nil
            }
            start = start ?? page
            end = page + 1
        }
        if let start { found.append(start..<end) }
        return found
    }

    /// Parts that a pause and the buffer allow.
    private func split(_ pages: Range<Int>, for territory: Territory) -> [Chunk] {
        var found: [Chunk] = []
        var start = pages.lowerBound
        var kept = 0
        for page in pages {
            let isKept = isKept(page, in: territory)
            if page - start == Self.chunkLength || isKept && kept == mapping.bufferedFrames / 2 {
                found.append(Chunk(pages: start..<page, territory: territory))
                (start, kept) = (page, 0)
            }
            if isKept { kept += 1 }
        }
        found.append(Chunk(pages: start..<pages.upperBound, territory: territory))
        return found
    }

    /// Whether a page has memory of its own over a territory.
    private func isKept(_ page: Int, in territory: Territory) -> Bool {
        switch records.kind(page) {
        case .home, .unshared, .untouched: true
        case .mapped, .zero: Territory(records.backing(page), page: page) != territory
        }
    }

    /// Replaces the backing of a range in a pause.
    /// - Returns: whether it was done, or will be by itself.
    private func move(_ pages: Range<Int>, to territory: Territory) -> Bool {
        if territory == .home {
            // What the store knew of them is forgotten on the way. Shared ones are given up.
            let own = pages.filter { records.kind($0) == .unshared && !records.isGivenUp($0) }
            let shared = pages.filter {
                records.kind($0) == .mapped || records.kind($0) == .zero || records.isGivenUp($0)
            }
            let taken = rehome(Array(pages))
            own.forEach(watch)
            for page in shared where records.kind(page) == .home { records.setGivenUp(page, true) }
            return taken == pages.count
        }
        let target = territory.backing(of: pages.lowerBound)
        // Allocated before the pause.
        var kept = pages.map { isKept($0, in: territory) }
        var moved = false
        var fell: MappingFailure?
        writers.pauseWriters()
        let opened = monotonicNanoseconds()
        if pages.allSatisfy({ inFlight.count($0) == 0 }) {
            do throws(MappingFailure) { moved = try mapping.rearrange(pages, target, keeping: &kept) } catch {
                note(error)
                fell = error
            }
        }
        let length = monotonicNanoseconds() - opened
        writers.resumeWriters()
        noteStop(length)
        // What had a reference maps nothing any more.
        if case .wentHome(let lost, _)? = fell {
            lost.forEach(forget)
            lost.forEach(watch)
        }
        if moved { count { $0.arrangements += 1 } }
        if moved { recordMove(pages, target, territory) }
        return moved
    }

    private func recordMove(_ pages: Range<Int>, _ target: PageRecords.Backing, _ territory: Territory) {
        var punch: [Range<Int>] = []
        for page in pages {
            let was = Territory(records.backing(page), page: page)
            if was == .home {
                if let last = punch.last, last.upperBound == page {
                    punch[punch.count - 1] = last.lowerBound..<page + 1
                } else {
                    punch.append(page..<page + 1)
                }
            }
            if was == territory { continue }
            var givenUp = records.isGivenUp(page)
            switch records.kind(page) {
            case .home, .unshared: break
            case .untouched: if territory == .zero { watch(page) }
            // Given up: a copy of its own from now on, and looked at again when it was written.
            case .mapped, .zero:
                forget(page)
                unwatch(page)
                givenUp = true
            }
            records.setKind(page, .unshared)
            records.setGivenUp(page, givenUp)
            note(.absorbed, page)
        }
        records.setBacking(pages, target)
        punch.forEach(mapping.punchHome)
    }
}
