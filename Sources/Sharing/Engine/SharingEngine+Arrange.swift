internal import GuestMemory

// What was merged bit by bit is put together again, in pauses, once the guest rests: fewer mappings.
extension SharingEngine {
    /// Pages that are arranged at a time, and in one pause.
    private static let sliceLength = 1 << 15
    private static let chunkLength = 1024
    /// Pages that are in place already and are remapped all the same, rather than that what is on either side takes a pause
    /// each.
    private static let bridge = 64
    /// Private pages that are copied to join pieces, for each mapping less.
    private static let copiesPerPiece = 512
    /// Pauses in a pass at most.
    private static let pausesPerPass = 16
    /// Wall time, nanoseconds, after which the rest waits for the next pass: the store must hear from us in between.
    private static let patience: UInt64 = 200_000_000

    /// Arranges a slice of memory if that is due.
    /// - Returns: whether there was something to do.
    func arrange(_ activity: Int) -> Bool {
        guard fatal == nil, policy.arrangementGain > 0, !hasOrphans,
            schedule.isDue(situation(activity), policy), var round = schedule.round
        else { return false }
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
        let chunks = plan.stretches.flatMap { stretch in
            wrongParts(of: stretch).map { Chunk(pages: $0, territory: stretch.territory) }
        }
        return move(chunks, &round)
    }

    /// Joins what the kernel has in pieces: neighbours that have private pages of their own it leaves apart, but a new
    /// mapping it joins with its left neighbour. So all that follows the first piece is mapped anew.
    private func join(_ slice: Range<Int>, _ round: inout ArrangementSchedule.Round) -> Bool {
        let starts = mapping.mappingStarts().filter {
            slice.contains($0) && $0 >= max(round.cursor, slice.lowerBound + 1)
        }
        var chunks: [Chunk] = []
        var next = 0
        var start = slice.lowerBound
        while start < slice.upperBound {
            let territory = Territory(records.backing(start), page: start)
            var end = start + 1
            while end < slice.upperBound, Territory(records.backing(end), page: end) == territory { end += 1 }
            while next < starts.count, starts[next] <= start { next += 1 }
            let first =
                policy.arrangesAll ? max(start, round.cursor) : next < starts.count ? starts[next] : end
            var pieces = 0
            while next < starts.count, starts[next] < end { (next, pieces) = (next + 1, pieces + 1) }
            if territory != .home, first < end,
                policy.arrangesAll
                    || (first..<end).count(where: { records.kind($0) == .unshared })
                        <= pieces * Self.copiesPerPiece
            {
                chunks += split(first..<end).map { Chunk(pages: $0, territory: territory) }
            }
            start = end
        }
        return move(chunks, &round)
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
            if pauses == Self.pausesPerPass || monotonicNanoseconds() - started > Self.patience {
                return false
            }
            pauses += 1
            if !move(chunk.pages, to: chunk.territory) { round.isIncomplete = true }
            if fatal != nil { return true }
            round.cursor = chunk.pages.upperBound
        }
        return true
    }

    /// The parts of a stretch that are not yet as they should be, as long as a pause and the buffer allow.
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
        return found.flatMap(split)
    }

    /// Parts that a pause and the buffer allow.
    private func split(_ pages: Range<Int>) -> [Range<Int>] {
        var found: [Range<Int>] = []
        var start = pages.lowerBound
        var ownPages = 0
        for page in pages {
            let isOwn = records.kind(page) == .home || records.kind(page) == .unshared
            if page - start == Self.chunkLength || isOwn && ownPages == mapping.bufferedFrames / 2 {
                found.append(start..<page)
                (start, ownPages) = (page, 0)
            }
            if isOwn { ownPages += 1 }
        }
        found.append(start..<pages.upperBound)
        return found
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
        var kept = pages.map { page in
            switch records.kind(page) {
            case .home, .unshared, .untouched: true
            case .mapped, .zero: Territory(records.backing(page), page: page) != territory
            }
        }
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
        count { $0.windows.record(length) }
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
