internal import FrameStore
internal import GuestMemory

// Step 4 of a pass: what the engine tells the store, and asks it, in batches. Any answer may hold promotions.
extension StoreLink {
    /// Asks about what an inspection found; publishes what the store wants.
    /// - Parameter merge: takes hits, batch by batch; those of a store that was lost since are not given to it, since mappings of
    ///   that would be nobody's, and never move to the next store.
    func lookUp(_ findings: Inspector.Findings, _ inspector: Inspector, merge: ([FrameHit]) -> Void) {
        var (sightings, uniform) = (findings.sightings, findings.uniform)
        while let limit = store?.batchLimit, !sightings.isEmpty || !uniform.isEmpty {
            var batch = StoreBatch()
            batch.sightings = Array(sightings.prefix(limit / 2))
            batch.uniform = Array(uniform.prefix(limit / 2))
            sightings.removeFirst(batch.sightings.count)
            uniform.removeFirst(batch.uniform.count)
            // Whatever the store knew of these pages, it replaces by what it is told now.
            for page in batch.sightings.map(\.page) + batch.uniform.map(\.page) {
                pages.removals.remove(Int(page))
            }
            guard let reply = ask(batch) else { return }
            journal.reached(.lookedUp)
            var answers = Answers()
            for (item, answer) in zip(batch.sightings, reply.sightings) { take(item.page, answer, &answers) }
            for (item, answer) in zip(batch.uniform, reply.uniform) {
                if answer == .refused {
                    // There are too many patterns: it is content like any other.
                    pages.noteUnknown(Int(item.page))
                    sightings.append(inspector.sighting(of: item.page))
                } else {
                    take(item.page, answer, &answers)
                }
            }
            answers.hits += hits(of: reply.promotions)
            publish(answers.wanted, &answers)
            if isConnected { merge(answers.hits) }
        }
    }

    /// Tells the store what it shall forget.
    /// - Parameter merge: takes hits, as in ``lookUp(_:_:merge:)``.
    func sendRemovals(merge: ([FrameHit]) -> Void) {
        if store == nil { pages.removals.removeAll() }
        while let limit = store?.batchLimit, !pages.removals.isEmpty {
            var batch = StoreBatch()
            batch.forgotten.reserveCapacity(min(pages.removals.count, limit))
            while batch.forgotten.count < limit, let page = pages.removals.popFirst() {
                batch.forgotten.append(ClientPage(page))
            }
            journal.reached(.forgetting)
            guard let reply = ask(batch) else { return }
            journal.reached(.forgot)
            merge(hits(of: reply.promotions))
        }
    }

    /// Tells the store which pages map their frames' new places.
    /// - Parameter merge: takes hits, as in ``lookUp(_:_:merge:)``.
    func acknowledge(_ done: [Relocation], merge: ([FrameHit]) -> Void) {
        var left = done[...]
        while let limit = store?.batchLimit, !left.isEmpty {
            var batch = StoreBatch()
            batch.relocated = Array(left.prefix(limit))
            left = left.dropFirst(batch.relocated.count)
            guard let reply = ask(batch) else { return }
            merge(hits(of: reply.promotions))
        }
    }

    /// Pages that one question may name.
    var questionLimit: Int { store?.batchLimit ?? Int.max }

    /// Asks what the store knows of pages; promotions that come along are kept for the next pass.
    /// - Returns: nil without a store.
    func explain(_ questions: [ClientPage]) -> StoreReply? {
        if questions.isEmpty { return nil }
        var batch = StoreBatch()
        batch.questions = questions
        guard let reply = ask(batch) else { return nil }
        keep(reply.promotions)
        return reply
    }

    /// What the store's answers ask for.
    private struct Answers {
        var hits: [FrameHit] = []
        /// To be published.
        var wanted: [ClientPage] = []
    }

    private func take(_ page: ClientPage, _ answer: StoreAnswer, _ answers: inout Answers) {
        let number = Int(page)
        switch answer {
        case .recorded: pages.noteSighting(number)
        case .frame(let location):
            pages.noteReference(number)
            answers.hits.append(FrameHit(page: number, location: location))
        case .publish:
            pages.noteUnknown(number)
            // Of a page whose sharing was given up, it would be a frame with one mapper.
            if !pages.isGivenUp(number) { answers.wanted.append(page) }
        case .refused:
            pages.noteUnknown(number)
            tracker.postpone(number)
        }
    }

    private func publish(_ wanted: [ClientPage], _ answers: inout Answers) {
        guard let slots = store?.stagingSlots else { return }
        for start in stride(from: 0, to: wanted.count, by: slots) {
            var batch = StoreBatch()
            for (slot, page) in wanted[start...].prefix(slots).enumerated() {
                mapping.stage(Int(page), slot: slot)
                batch.publications.append(StoreBatch.Publication(page: page, slot: UInt32(slot)))
            }
            guard let reply = ask(batch) else { return }
            journal.reached(.published)
            for (item, answer) in zip(batch.publications, reply.publications) {
                take(item.page, answer, &answers)
            }
            answers.hits += hits(of: reply.promotions)
        }
    }
}
