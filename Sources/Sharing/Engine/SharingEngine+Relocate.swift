internal import FrameStore
internal import GuestMemory

// A frame got another place in the store: the pages that map the old one are mapped from the new one, while the guest runs.
//
// The order is that of a merge, with a step behind: frame fetched, window opened, all bytes compared, mapped anew, window closed,
// recorded; *then* the store is told. Until it is, the old place keeps its bytes, so that a page that cannot be moved now may stay
// as it is: nothing is given back for it. The store names it again.
extension SharingEngine {
    /// Maps pages from where their frames are now, and says so.
    func relocate(_ moved: [Relocation]) {
        var due: [(page: Int, location: FrameLocation)] = []
        for relocation in moved where Int(relocation.page) < records.count {
            let page = Int(relocation.page)
            // A page that is not mapped yet, or is another store's, has nothing to leave.
            guard records.kind(page) == .mapped, records.isKnown(page), !records.isOrphan(page),
                inFlight.count(page) == 0
            else { continue }
            due.append((page, relocation.location))
        }
        if due.isEmpty || store == nil || fatal != nil { return }
        var done: [Relocation] = []
        var group: [Span] = []
        var size = 0
        for span in spans(due.sorted { $0.page < $1.page }) {
            if size > 0, policy.window == .userfaultfd || size + span.pages.count > windowLimit {
                relocate(group, &done)
                group.removeAll(keepingCapacity: true)
                size = 0
            }
            group.append(span)
            size += span.pages.count
        }
        relocate(group, &done)
        if done.isEmpty { return }
        stir()
        acknowledge(done)
    }

    /// Maps stretches anew, in one window.
    private func relocate(_ group: [Span], _ done: inout [Relocation]) {
        var ready: [Span] = []
        var fetched = 0
        var planned = 0
        for span in group {
            let growth = records.growth(span.pages, .frame(span.location))
            guard fatal == nil, hasRoom(for: planned + growth),
                mapping.fetchFrames(span.location, count: span.pages.count, into: fetched) == span.pages.count
            else { continue }
            fetched += span.pages.count
            planned += max(growth, 0)
            ready.append(span)
        }
        if ready.isEmpty { return }
        // All that the window needs is allocated here.
        var mapped = [Bool](repeating: false, count: ready.count)
        var kept = ready.map { span in
            var list: [Int] = []
            list.reserveCapacity(span.pages.count)
            return list
        }
        let opened = window(ready.map(\.pages)) { replaced in
            var base = 0
            for index in ready.indices {
                mapped[index] = self.mapInWindow(ready[index], base: base, kept: &kept[index])
                if mapped[index] { replaced[index] = ready[index].pages.count }
                base += ready[index].pages.count
            }
        }
        guard opened else { return }
        for (index, span) in ready.enumerated() {
            if mapped[index] {
                record(span, kept: kept[index])
                for page in span.targets where records.kind(page) == .mapped {
                    let location = span.location.advanced(by: page - span.pages.lowerBound)
                    done.append(Relocation(page: ClientPage(page), location: location))
                }
            } else if fatal == nil {
                relocatePieces(span, kept: kept[index], &done)
            }
        }
    }

    /// A stretch that could not be mapped whole: each piece of pages that hold what the frames hold on its own.
    private func relocatePieces(_ span: Span, kept: [Int], _ done: inout [Relocation]) {
        let excluded = Set(kept)
        var equal: [Int] = []
        for page in span.targets {
            if records.kind(page) != .mapped {
                // A failed mapping took it home: nothing of the store is mapped there.
                postpone(page)
            } else if !excluded.contains(page) {
                equal.append(page)
            } else if inFlight.count(page) == 0 {
                // Written, as it seems. The reference goes back when the page map says so, and not before.
                count { $0.mismatches += 1 }
                note(.mismatch, page)
                rechecks.insert(page)
            }
        }
        // What could not be mapped though it is whole stays where it is for now.
        if kept.isEmpty || equal.count == span.pages.count { return }
        var start = 0
        while start < equal.count {
            var end = start + 1
            while end < equal.count, equal[end] == equal[end - 1] + 1 { end += 1 }
            let pages = equal[start]..<equal[end - 1] + 1
            let location = span.location.advanced(by: pages.lowerBound - span.pages.lowerBound)
            relocate([Span(pages: pages, location: location, targets: Array(equal[start..<end]))], &done)
            start = end
        }
    }

    /// Tells the store which pages map their frames' new places.
    private func acknowledge(_ done: [Relocation]) {
        var left = done[...]
        while let store, !left.isEmpty {
            var batch = StoreBatch()
            batch.relocated = Array(left.prefix(store.batchLimit))
            left = left.dropFirst(batch.relocated.count)
            guard let reply = ask(batch) else { return }
            var hits: [(page: Int, location: FrameLocation)] = []
            take(reply.promotions, &hits)
            merge(hits)
        }
    }
}
