internal import GuestMemory

// What was merged bit by bit is put together again, in pauses, once the guest rests: fewer mappings.
extension SharingEngine {
    /// Pages that are arranged at a time, and in one pause.
    private static let sliceLength = 1 << 15
    private static let chunkLength = 1024
    /// Pauses in a pass at most.
    private static let pausesPerPass = 16
    /// Wall time, nanoseconds, after which the rest waits for the next pass: the store must hear from us in between.
    private static let patience: UInt64 = 200_000_000

    /// Arranges a slice of memory if that is due.
    /// - Returns: whether there was something to do.
    func arrange(_ activity: Int) -> Bool {
        guard fatal == nil, policy.arrangementGain > 0, !hasOrphans else { return false }
        if arrangeCursor == 0 {
            guard activity <= policy.arrangementCalm, statistics.fullScans >= nextArrangement else {
                return false
            }
            let least = max(policy.arrangementGain, arrangedSeams / 16)
            joinsAll = surplus - arrangedSurplus >= least || policy.arrangesAll
            let isLossy = mayGiveUp && !hasGivenUp
            guard joinsAll || isLossy || abs(records.seams - arrangedSeams) >= least else { return false }
            if mayGiveUp { hasGivenUp = true }
        }
        let slice = arrangeCursor..<min(arrangeCursor + Self.sliceLength, records.count)
        let end = arrange(slice)
        arrangeCursor = end == records.count ? 0 : end
        if arrangeCursor == 0 {
            recountMappings()
            // As long as it changes something, it goes on. Pieces that are left though all was joined, stay.
            arrangedSeams = isChanging ? 0 : records.seams
            if joinsAll { arrangedSurplus = surplus }
            isChanging = false
            nextArrangement = statistics.fullScans + policy.arrangementInterval
        }
        return true
    }

    /// While frames still find better places, it would be for nothing.
    private var mayGiveUp: Bool { statistics.fullScans - lastStir >= policy.arrangementRest }

    /// - Returns: up to where the slice is as it should be, or cannot be better now.
    private func arrange(_ slice: Range<Int>) -> Int {
        let shared = slice.count { records.kind($0) == .mapped || records.kind($0) == .zero }
        let givenUp = slice.count { records.isGivenUp($0) }
        let plan = Arrangement.best(
            records, slice, prices: policy.mappingPrices,
            allowance: mayGiveUp ? max(0, (shared + givenUp) / policy.arrangementAllowance - givenUp) : -1
        ) { inFlight.count($0) > 0 }
        guard joinsAll || plan.seamsBefore - plan.seamsAfter >= max(1, plan.seamsBefore / 16) else {
            return slice.upperBound
        }
        var pauses = 0
        let started = monotonicNanoseconds()
        for stretch in plan.stretches {
            for chunk in chunks(of: stretch) {
                if pauses == Self.pausesPerPass || monotonicNanoseconds() - started > Self.patience {
                    return chunk.lowerBound
                }
                pauses += 1
                isChanging = !joinsAll
                if !move(chunk, to: stretch.territory) || fatal != nil { return slice.upperBound }
            }
        }
        return slice.upperBound
    }

    /// The parts of a stretch that are not yet as they should be, as long as a pause and the buffer allow. Of a stretch of
    /// private mappings, what follows comes along: the kernel joins a new mapping with its left neighbour, but two that
    /// have private pages already it does not.
    private func chunks(of stretch: Arrangement.Stretch) -> [Range<Int>] {
        var chunks: [Range<Int>] = []
        var start: Int?
        var ownPages = 0
        // To be joined, it needs something to be joined: private pages of its own.
        let isJoined =
            joinsAll && stretch.territory != .home && stretch.pages.contains { records.kind($0) == .unshared }
        for page in stretch.pages {
            let isRight = !isJoined && Territory(records.backing(page), page: page) == stretch.territory
            if let first = start {
                let isOwn = records.kind(page) == .home || records.kind(page) == .unshared
                let isFull =
                    page - first == Self.chunkLength
                    || ownPages + (isOwn ? 1 : 0) > mapping.bufferedFrames / 2
                if isFull || (isRight && stretch.territory == .home) {
                    chunks.append(first..<page)
                    start = isRight && stretch.territory == .home ? nil : page
                    ownPages = isOwn ? 1 : 0
                } else {
                    ownPages += isOwn ? 1 : 0
                }
            } else if !isRight {
                start = page
                ownPages = 1
            }
        }
        if let first = start { chunks.append(first..<stretch.pages.upperBound) }
        return chunks
    }

    /// Replaces the backing of a range in a pause.
    /// - Returns: whether it was done, or will be by itself.
    private func move(_ pages: Range<Int>, to territory: Territory) -> Bool {
        if territory == .home {
            // What the store knew of them is forgotten on the way. Shared ones are given up.
            let own = pages.filter { records.kind($0) == .unshared }
            let taken = rehome(Array(pages))
            own.forEach(watch)
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
            records.setUnregistered(page, true)
            if was == territory { continue }
            var givenUp = false
            switch records.kind(page) {
            case .home, .unshared: break
            case .untouched: if territory == .zero { watch(page) }
            // Given up: its content is the guest's own from now on, and looked at again when it was written.
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
