internal import FrameStore
internal import GuestMemory

/// Step 5 of a pass: pages are compared with frames and mapped to them, in windows.
final class Merger {
    /// A stretch of guest pages and the stretch of the store that they are to be mapped to.
    struct Span {
        var pages: Range<Int>
        var location: FrameLocation
        /// Pages of the stretch that a frame was found for; the rest are gaps.
        var targets: [Int]
    }

    /// Longest gap that one mapping is drawn across.
    private static let gapLimit = 16

    let window: Window
    let pages: GuestPages
    let tracker: DirtyTracker
    let budget: ProcessBudget
    let inFlight: InFlightCounts
    let conditions: PassConditions
    let journal: EngineJournal
    private var mapping: any GuestMapping { window.mapping }

    init(
        _ window: Window, _ pages: GuestPages, _ tracker: DirtyTracker, _ budget: ProcessBudget,
        _ inFlight: InFlightCounts, _ conditions: PassConditions, _ journal: EngineJournal
    ) {
        (self.window, self.pages, self.tracker, self.budget) = (window, pages, tracker, budget)
        (self.inFlight, self.conditions, self.journal) = (inFlight, conditions, journal)
    }

    /// Maps pages to frames whose references are counted already; what cannot be mapped is forgotten.
    func merge(_ hits: [FrameHit]) {
        let policy = conditions.policy
        guard conditions.fatal == nil, policy.isEnabled else { return hits.forEach { pages.forget($0.page) } }
        if policy.holdsMerges { return hits.forEach { giveBack($0.page) } }
        let wanted = spans(hits.sorted { $0.page < $1.page }).filter { span in
            let isWanted = !staysGivenUp(span.pages, span.targets, .frame(span.location))
            if !isWanted { span.targets.forEach(pages.forget) }
            return isWanted
        }
        inGroups(wanted, merge)
    }

    /// Calls `body` for the stretches of a window each. A pause costs the same for one page and for many; a protected stretch stands
    /// for itself.
    func inGroups(_ spans: [Span], _ body: ([Span]) -> Void) {
        var group: [Span] = []
        var size = 0
        for span in spans {
            if size > 0, conditions.policy.window == .userfaultfd || size + span.pages.count > windowLimit {
                body(group)
                group.removeAll(keepingCapacity: true)
                size = 0
            }
            group.append(span)
            size += span.pages.count
        }
        if !group.isEmpty { body(group) }
    }

    /// Gives a reference back that is not used now; the page is looked at again when merges are no longer held.
    private func giveBack(_ page: Int) {
        pages.forget(page)
        tracker.watch(page)
    }

    /// Whether these pages, which were given up for fewer mappings and written since, would cost more mappings than their sharing
    /// is worth; or half of that, so that what is shared again is not given up again next.
    func staysGivenUp(_ range: Range<Int>, _ targets: some Collection<Int>, _ backing: PageBacking) -> Bool {
        targets.allSatisfy(pages.isGivenUp)
            && 2 * pages.growth(range, backing) * budget.price.mapping >= targets.count * MemoryPrice.page
    }

    /// Pages in one window at most.
    private var windowLimit: Int {
        let policy = conditions.policy
        return min(policy.window == .pause ? policy.pauseLimit : policy.runLimit, mapping.viewLimit)
    }

    /// Joins neighbours whose frames are neighbours as well, across short gaps.
    func spans(_ hits: [FrameHit]) -> [Span] {
        let limit = windowLimit
        var spans: [Span] = []
        for hit in hits {
            // A promotion and an answer may name one page twice.
            if spans.last?.targets.last == hit.page { continue }
            if let last = spans.last, hit.page - last.pages.lowerBound < limit,
                hit.page >= last.pages.upperBound, hit.page - last.pages.upperBound <= Self.gapLimit,
                hit.location == last.location.advanced(by: hit.page - last.pages.lowerBound),
                (last.pages.upperBound..<hit.page).allSatisfy(canBeAbsorbed)
            {
                spans[spans.count - 1].pages = last.pages.lowerBound..<hit.page + 1
                spans[spans.count - 1].targets.append(hit.page)
            } else {
                spans.append(
                    Span(pages: hit.page..<hit.page + 1, location: hit.location, targets: [hit.page]))
            }
        }
        return spans
    }

    /// Whether a page can become a private copy over a mapping of frames that are not its own.
    private func canBeAbsorbed(_ page: Int) -> Bool {
        switch pages.kind(page) {
        case .home, .unshared: inFlight.count(page) == 0
        // A mapped one has a reference. Zeros would need a page of their own here: one of the kernel's over a file goes
        // when the file is punched below it, and what the store writes there next would show.
        case .untouched, .zero, .mapped: false
        }
    }

    /// Merges stretches in one window.
    private func merge(_ group: [Span]) {
        let ready = prepare(group) { $0.targets.forEach(tracker.postpone) }
        if ready.isEmpty { return }
        let (opened, mapped, kept) = mapTogether(ready)
        for index in ready.indices {
            if opened, mapped[index] {
                record(ready[index], kept: kept[index])
            } else if opened, conditions.fatal == nil {
                mergePieces(ready[index], kept: kept[index])
            } else {
                ready[index].targets.forEach(tracker.postpone)
            }
        }
    }

    /// Takes the frames of stretches into view for which there are mappings.
    /// - Parameter putOff: called for each of the others.
    func prepare(_ group: [Span], putOff: (Span) -> Void) -> [Span] {
        var ready: [Span] = []
        var planned = 0
        mapping.endView()
        for span in group {
            let growth = pages.growth(span.pages, .frame(span.location))
            guard budget.hasRoom(for: planned + growth),
                mapping.view(span.location, count: span.pages.count)
            else {
                putOff(span)
                continue
            }
            planned += max(growth, 0)
            ready.append(span)
        }
        return ready
    }

    /// Compares stretches whose frames are in view, and maps them, in one window.
    /// - Returns: whether it could be opened; which stretches were mapped; the pages of each that got private copies, or that kept it
    ///   from being mapped.
    func mapTogether(_ ready: [Span]) -> (opened: Bool, mapped: [Bool], kept: [[Int]]) {
        // All that the window needs is allocated here.
        var mapped = [Bool](repeating: false, count: ready.count)
        var kept = ready.map { span in
            var list: [Int] = []
            list.reserveCapacity(span.pages.count)
            return list
        }
        let opened = window.protecting(ready.map(\.pages)) { replaced in
            for index in ready.indices {
                mapped[index] = mapInWindow(ready[index], kept: &kept[index])
                if mapped[index] { replaced[index] = ready[index].pages.count }
            }
        }
        return (opened, mapped, kept)
    }

    /// In the window: compares a stretch and replaces its mapping.
    private func mapInWindow(_ span: Span, kept: inout [Int]) -> Bool {
        var next = 0
        for page in span.pages {
            if next < span.targets.count, span.targets[next] == page {
                next += 1
                let frame = span.location.advanced(by: page - span.pages.lowerBound)
                if inFlight.count(page) == 0, mapping.equals(page, frame) { continue }
            }
            kept.append(page)
            if inFlight.count(page) > 0 { return false }
        }
        if kept.count == span.pages.count { return false }
        journal.reached(.compared)
        do throws(MappingFailure) {
            if kept.isEmpty {
                try mapping.mapFrames(span.pages, span.location)
            } else if try !mapping.mapFrames(span.pages, span.location, keeping: kept) {
                return false
            }
            journal.reached(.remapped)
            return true
        } catch {
            window.note(error)
            return false
        }
    }

    /// Without gaps: each stretch of equal pages on its own.
    private func mergePieces(_ span: Span, kept: [Int]) {
        let excluded = Set(kept)
        span.targets.filter(excluded.contains).forEach(noteMismatch)
        let targets = span.targets.filter { !excluded.contains($0) }
        // A stretch that is whole and could not be mapped all the same: nothing smaller will do.
        if kept.isEmpty || targets.isEmpty || targets.count == span.pages.count {
            return targets.forEach(tracker.postpone)
        }
        for run in runs(of: targets) {
            let location = span.location.advanced(by: run.lowerBound - span.pages.lowerBound)
            merge([Span(pages: run, location: location, targets: Array(run))])
        }
    }

    /// The page was written since it was looked at.
    private func noteMismatch(_ page: Int) {
        journal.count { $0.mismatches += 1 }
        journal.note(.mismatch, page)
        pages.forget(page)
    }

    /// The mapping is made: state first, then home's memory.
    func record(_ span: Span, kept: [Int]) {
        // A frame of a lost store, written since: should that not have been reported, the audit does not see it any more.
        kept.filter { pages.kind($0) == .mapped }.forEach(tracker.watch)
        let hidden = pages.map(span.pages, to: span.location, keeping: kept)
        var remaining = kept[...]
        for page in span.pages {
            guard remaining.first == page else {
                tracker.unwatch(page)
                journal.note(.merged, page, span.location.advanced(by: page - span.pages.lowerBound))
                continue
            }
            remaining = remaining.dropFirst()
            journal.note(.absorbed, page)
        }
        journal.count { $0.pagesMerged += span.pages.count - kept.count }
        if !kept.isEmpty { Set(kept).intersection(span.targets).forEach(noteMismatch) }
        journal.reached(.recorded)
        if hidden.isEmpty { return }
        journal.reached(.punching)
        hidden.forEach(mapping.punchHome)
        journal.reached(.punched)
    }
}
