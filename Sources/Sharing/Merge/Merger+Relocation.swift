internal import FrameStore
internal import GuestMemory

// A frame got another place in the store: the pages that map the old one are mapped from the new one, while the guest runs.
//
// The order is that of a merge, with a step behind: frame fetched, window opened, all bytes compared, mapped anew, window closed,
// recorded; *then* the store is told. Until it is, the old place keeps its bytes, so that a page that cannot be moved now may stay
// as it is: nothing is given back for it. The store names it again.
extension Merger {
    /// What became of pages whose frames moved.
    struct Moves {
        /// Mapped from the new places: to be acknowledged.
        var done: [Relocation] = []
        /// Written, as it seems: their references go back when the page map says so, and not before.
        var suspects: [Int] = []
    }

    /// Maps pages from where their frames are now.
    func relocate(_ moved: [Relocation]) -> Moves {
        var moves = Moves()
        if conditions.fatal != nil { return moves }
        let due = moved.filter { isMovable(Int($0.page)) }
            .map { FrameHit(page: Int($0.page), location: $0.location) }
        inGroups(spans(due.sorted { $0.page < $1.page })) { relocate($0, &moves) }
        return moves
    }

    /// A page that is not mapped yet, or is another store's, has nothing to leave.
    private func isMovable(_ page: Int) -> Bool {
        page < pages.count && pages.kind(page) == .mapped && pages.isKnown(page) && !pages.isOrphan(page)
            && inFlight.count(page) == 0
    }

    /// Maps stretches anew, in one window.
    private func relocate(_ group: [Span], _ moves: inout Moves) {
        if conditions.fatal != nil { return }
        let ready = prepare(group) { _ in }
        if ready.isEmpty { return }
        let (opened, mapped, kept) = mapTogether(ready)
        guard opened else { return }
        for (index, span) in ready.enumerated() {
            if mapped[index] {
                record(span, kept: kept[index])
                for page in span.targets where pages.kind(page) == .mapped {
                    let location = span.location.advanced(by: page - span.pages.lowerBound)
                    moves.done.append(Relocation(page: ClientPage(page), location: location))
                }
            } else if conditions.fatal == nil {
                relocatePieces(span, kept: kept[index], &moves)
            }
        }
    }

    /// A stretch that could not be mapped whole: each piece of pages that hold what the frames hold on its own.
    private func relocatePieces(_ span: Span, kept: [Int], _ moves: inout Moves) {
        let excluded = Set(kept)
        var equal: [Int] = []
        for page in span.targets {
            if pages.kind(page) != .mapped {
                // A failed mapping took it home: nothing of the store is mapped there.
                tracker.postpone(page)
            } else if !excluded.contains(page) {
                equal.append(page)
            } else if inFlight.count(page) == 0 {
                journal.count { $0.mismatches += 1 }
                journal.note(.mismatch, page)
                moves.suspects.append(page)
            }
        }
        // What could not be mapped though it is whole stays where it is for now.
        if kept.isEmpty || equal.count == span.pages.count { return }
        for run in runs(of: equal) {
            let location = span.location.advanced(by: run.lowerBound - span.pages.lowerBound)
            relocate([Span(pages: run, location: location, targets: Array(run))], &moves)
        }
    }
}
