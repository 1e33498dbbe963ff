internal import FrameStore
internal import GuestMemory

// Steps 3, 4 and 6 of a pass: looking at pages and asking the store.
extension SharingEngine {
    /// Promotions that are kept between passes.
    private static let newsLimit = 1 << 14

    /// Looks at clean pages and merges what can be merged.
    func share(_ pages: [Int]) {
        var zero: [Int] = []
        var uniform: [StoreBatch.UniformPage] = []
        var sightings: [StoreBatch.Sighting] = []
        for page in pages {
            unwatch(page)
            // Shared already. To ask about a page that has a reference would give that back, under the mapping.
            let kind = records.kind(page)
            if kind == .zero || kind == .mapped && !records.isOrphan(page) { continue }
            // A device is writing, or has written and marked the page, and is about to say that it is done.
            if inFlight.count(page) > 0 {
                watch(page)
                continue
            }
            records.settle(page)
            count { $0.pagesHashed += 1 }
            switch mapping.inspect(page) {
            case .zero: zero.append(page)
            case .uniform(let pattern):
                uniform.append(StoreBatch.UniformPage(page: ClientPage(page), pattern: pattern))
            case .other(let hash): sightings.append(StoreBatch.Sighting(page: ClientPage(page), hash: hash))
            }
        }
        mergeZero(zero)
        guard let store else { return }
        splitUniform(&uniform, &sightings)
        while !sightings.isEmpty || !uniform.isEmpty {
            var batch = StoreBatch()
            batch.sightings = Array(sightings.prefix(store.batchLimit / 2))
            batch.uniform = Array(uniform.prefix(store.batchLimit / 2))
            sightings.removeFirst(batch.sightings.count)
            uniform.removeFirst(batch.uniform.count)
            // Whatever the store knew of these pages, it replaces by what it is told now.
            (batch.sightings.map(\.page) + batch.uniform.map(\.page)).forEach { dropQueuedForget($0) }
            guard let reply = ask(batch) else { return }
            reached(.lookedUp)
            var hits: [(page: Int, location: FrameLocation)] = []
            var wanted: [ClientPage] = []
            for (item, answer) in zip(batch.sightings, reply.sightings) {
                take(item.page, answer, &hits, &wanted)
            }
            for (item, answer) in zip(batch.uniform, reply.uniform) {
                if answer == .refused {
                    // There are too many patterns: it is content like any other.
                    records.setKnown(Int(item.page), false)
                    let hash = mapping.hash(Int(item.page))
                    sightings.append(StoreBatch.Sighting(page: item.page, hash: hash))
                } else {
                    take(item.page, answer, &hits, &wanted)
                }
            }
            take(reply.promotions, &hits)
            publish(wanted, &hits)
            merge(hits)
        }
    }

    /// Step 6: asks whether there is news, until there is none.
    func takeNews() -> Int {
        var taken = 0
        while let reply = ask(mayMove ? StoreBatch() : .forNewsOnly) {
            var hits: [(page: Int, location: FrameLocation)] = []
            take(reply.promotions, &hits)
            taken += hits.count
            merge(hits)
            if mayMove {
                takeHome(reply.lonely)
                relocate(reply.moved)
            }
            if !reply.hasMore { break }
        }
        return taken
    }

    /// Frames that nobody else maps save nothing and cost a mapping. Seen so several times, their pages go home, where
    /// they are looked at again like any other.
    private func takeHome(_ lonely: [ClientPage]) {
        var due: [Int] = []
        for page in lonely.map(Int.init) where page < records.count {
            guard records.kind(page) == .mapped, records.isKnown(page), due.count < policy.pauseLimit else {
                records.setLonelyRounds(page, 0)
                continue
            }
            let rounds = min(records.lonelyRounds(page) + 1, PageRecords.mostLonelyRounds)
            records.setLonelyRounds(page, rounds)
            if rounds >= min(policy.lonelyRounds, PageRecords.mostLonelyRounds) { due.append(page) }
        }
        if due.isEmpty { return }
        due.forEach { records.setLonelyRounds($0, 0) }
        rehome(due)
        due.forEach(watch)
    }

    /// Between passes: merges what others published meanwhile. While guests that hold the same begin to share, there is such
    /// news all the time, long before the store would say so. This is no pass: nothing is harvested, looked at or arranged.
    public func hearNews() {
        guard policy.isEnabled, !policy.holdsMerges, fatal == nil, hasMemory(for: .pass) else {
            return keepInTouch()
        }
        let started = clock()
        takeOldNews()
        while let reply = ask(.forNewsOnly) {
            var hits: [(page: Int, location: FrameLocation)] = []
            take(reply.promotions, &hits)
            merge(hits)
            if !reply.hasMore { break }
        }
        sendForgotten()
        flushTrace()
        updateStatistics(cpu: clock() - started)
    }

    /// Speaks to the store between passes if it asks for it, so that it does not take this client for lost, nor waits for it to
    /// free frames.
    public func keepInTouch() {
        if mustSpeak(monotonicClock()), hasMemory(for: .talk) { speak() }
    }

    /// Speaks to the store, whether or not it asks for it. What it says is merged later.
    func speak() {
        guard let reply = ask(.forNewsOnly) else { return }
        keep(reply.promotions)
        if !policy.isEnabled { takeOldNews() }
    }

    /// Keeps news for the next pass; leases beyond what is kept are given back.
    func keep(_ promotions: [StoreReply.Promotion]) {
        let room = max(0, Self.newsLimit - news.count)
        news += promotions.prefix(room)
        for promotion in promotions.dropFirst(room)
        where Int(promotion.page) < records.count { giveBack(Int(promotion.page)) }
    }

    /// Merges what came between passes; before anything else, while the references are certain.
    func takeOldNews() {
        var hits: [(page: Int, location: FrameLocation)] = []
        take(news, &hits)
        news.removeAll()
        merge(hits)
    }

    /// Tells the store what it shall forget; its answer may hold news.
    func sendForgotten() {
        guard let store else {
            forgotten.removeAll()
            return
        }
        while !forgotten.isEmpty {
            var batch = StoreBatch()
            batch.forgotten.reserveCapacity(min(forgotten.count, store.batchLimit))
            while batch.forgotten.count < store.batchLimit, let page = forgotten.popFirst() {
                batch.forgotten.append(ClientPage(page))
            }
            reached(.forgetting)
            guard let reply = ask(batch) else { return }
            reached(.forgot)
            var hits: [(page: Int, location: FrameLocation)] = []
            take(reply.promotions, &hits)
            merge(hits)
        }
    }

    /// Uniform pages that stand alone are content like any other: copies of their own would save nothing.
    private func splitUniform(
        _ uniform: inout [StoreBatch.UniformPage], _ sightings: inout [StoreBatch.Sighting]
    ) {
        var kept: [StoreBatch.UniformPage] = []
        var start = 0
        while start < uniform.count {
            var end = start + 1
            while end < uniform.count, uniform[end].pattern == uniform[start].pattern,
                uniform[end].page == uniform[end - 1].page + 1
            { end += 1 }
            let pages = Int(uniform[start].page)..<Int(uniform[end - 1].page) + 1
            if isLongRun(pages, of: uniform[start].pattern) {
                kept += uniform[start..<end]
            } else {
                for item in uniform[start..<end] {
                    let hash = mapping.hash(Int(item.page))
                    sightings.append(StoreBatch.Sighting(page: item.page, hash: hash))
                }
            }
            start = end
        }
        uniform = kept
    }

    /// Whether pages with a pattern, with their neighbours as they are now, are a run that is worth copies of its own. They are
    /// seldom looked at all together: merged one after the other as any content, each would take a mapping.
    private func isLongRun(_ pages: Range<Int>, of pattern: UInt64) -> Bool {
        func continues(_ page: Int) -> Bool {
            // To look at an untouched page would give it memory.
            switch records.kind(page) {
            case .untouched, .zero: false
            case .home, .mapped, .unshared: mapping.inspect(page) == .uniform(pattern)
            }
        }
        var (start, end) = (pages.lowerBound, pages.upperBound)
        while end - start < policy.uniformRun, end < records.count, continues(end) { end += 1 }
        while end - start < policy.uniformRun, start > 0, continues(start - 1) { start -= 1 }
        return end - start >= policy.uniformRun
    }

    private func dropQueuedForget(_ page: ClientPage) { forgotten.remove(Int(page)) }

    private func take(
        _ page: ClientPage, _ answer: StoreAnswer, _ hits: inout [(page: Int, location: FrameLocation)],
        _ wanted: inout [ClientPage]
    ) {
        switch answer {
        case .recorded:
            records.setKnown(Int(page), true)
            // Nobody else has what it holds now.
            records.setGivenUp(Int(page), false)
            note(.sighted, Int(page))
        case .frame(let location):
            records.setKnown(Int(page), true)
            hits.append((Int(page), location))
        case .publish:
            records.setKnown(Int(page), false)
            // It would be a frame with one mapper.
            if !records.isGivenUp(Int(page)) { wanted.append(page) }
        case .refused:
            records.setKnown(Int(page), false)
            postpone(Int(page))
        }
    }

    func take(
        _ promotions: [StoreReply.Promotion], _ hits: inout [(page: Int, location: FrameLocation)]
    ) {
        for promotion in promotions where Int(promotion.page) < records.count {
            // If the page was forgotten meanwhile, that message is on its way and gives the lease back.
            guard records.isKnown(Int(promotion.page)) else { continue }
            hits.append((Int(promotion.page), promotion.location))
        }
    }

    private func publish(_ wanted: [ClientPage], _ hits: inout [(page: Int, location: FrameLocation)]) {
        guard let store else { return }
        for start in stride(from: 0, to: wanted.count, by: store.stagingSlots) {
            var batch = StoreBatch()
            for (slot, page) in wanted[start...].prefix(store.stagingSlots).enumerated() {
                mapping.stage(Int(page), slot: slot)
                batch.publications.append(StoreBatch.Publication(page: page, slot: UInt32(slot)))
            }
            guard let reply = ask(batch) else { return }
            reached(.published)
            var none: [ClientPage] = []
            for (item, answer) in zip(batch.publications, reply.publications) {
                take(item.page, answer, &hits, &none)
            }
            take(reply.promotions, &hits)
        }
    }
}
