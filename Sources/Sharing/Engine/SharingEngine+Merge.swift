internal import FrameStore
internal import GuestMemory
internal import LinuxHost

// Step 5 of a pass: windows.
extension SharingEngine {
    /// A stretch of guest pages and the stretch of the store that they are to be mapped to.
    struct Span {
        var pages: Range<Int>
        var location: FrameLocation
        /// Pages of the stretch that a frame was found for; the rest are gaps.
        var targets: [Int]
    }

    /// Longest gap that one mapping is drawn across.
    private static let gapLimit = 16

    /// Maps pages to frames whose references are counted already; gives back what cannot be mapped.
    func merge(_ hits: [(page: Int, location: FrameLocation)]) {
        // A store that was lost since it answered: mappings of it would be nobody's, and never move to the next store.
        if hits.isEmpty || store == nil { return }
        guard fatal == nil, policy.isEnabled else { return hits.forEach { forget($0.page) } }
        if policy.holdsMerges { return hits.forEach { giveBack($0.page) } }
        var group: [Span] = []
        var size = 0
        for span in spans(hits.sorted { $0.page < $1.page }) {
            if stayGivenUp(span.pages, span.targets, .frame(span.location)) {
                span.targets.forEach(forget)
                continue
            }
            // A pause costs the same for one page and for many; a protected stretch stands for itself.
            if size > 0, policy.window == .userfaultfd || size + span.pages.count > windowLimit {
                merge(group)
                group.removeAll(keepingCapacity: true)
                size = 0
            }
            group.append(span)
            size += span.pages.count
        }
        merge(group)
    }

    /// Whether these pages, which were given up for fewer mappings and written since, would cost mappings again.
    private func stayGivenUp(
        _ pages: Range<Int>, _ targets: some Collection<Int>, _ backing: PageRecords.Backing
    ) -> Bool {
        targets.allSatisfy(records.isGivenUp) && records.growth(pages, backing) > 0
    }

    /// Pages in one window at most.
    var windowLimit: Int {
        min(policy.window == .pause ? policy.pauseLimit : policy.runLimit, mapping.bufferedFrames)
    }

    /// Joins neighbours whose frames are neighbours as well, across short gaps.
    func spans(_ hits: [(page: Int, location: FrameLocation)]) -> [Span] {
        let limit = windowLimit
        var spans: [Span] = []
        for hit in hits {
            // News and an answer may name one page twice.
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
        switch records.kind(page) {
        case .home, .unshared: inFlight.count(page) == 0
        // A mapped one has a reference. Zeros would need a page of their own here: one of the kernel's over a file goes
        // when the file is punched below it, and what the store writes there next would show.
        case .untouched, .zero, .mapped: false
        }
    }

    /// Merges stretches in one window.
    private func merge(_ group: [Span]) {
        var ready: [Span] = []
        var fetched = 0
        var planned = 0
        for span in group {
            let growth = records.growth(span.pages, .frame(span.location))
            guard hasRoom(for: planned + growth),
                mapping.fetchFrames(span.location, count: span.pages.count, into: fetched) == span.pages.count
            else {
                span.targets.forEach(postpone)
                continue
            }
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
        for index in ready.indices {
            if opened, mapped[index] {
                record(ready[index], kept: kept[index])
            } else if opened, fatal == nil {
                mergePieces(ready[index], kept: kept[index])
            } else {
                ready[index].targets.forEach(postpone)
            }
        }
    }

    /// In the window: compares a stretch and replaces its mapping.
    func mapInWindow(_ span: Span, base: Int, kept: inout [Int]) -> Bool {
        var next = 0
        for page in span.pages {
            if next < span.targets.count, span.targets[next] == page {
                next += 1
                let index = base + page - span.pages.lowerBound
                if inFlight.count(page) == 0, mapping.equalsFetched(page, index: index) { continue }
            }
            kept.append(page)
            if inFlight.count(page) > 0 { return false }
        }
        if kept.count == span.pages.count { return false }
        reached(.compared)
        do throws(MappingFailure) {
            if kept.isEmpty {
                try mapping.mapFrames(span.pages, span.location)
            } else if try !mapping.mapFrames(span.pages, span.location, keeping: kept) {
                return false
            }
            reached(.remapped)
            return true
        } catch {
            note(error)
            return false
        }
    }

    /// Without gaps: each stretch of equal pages on its own.
    private func mergePieces(_ span: Span, kept: [Int]) {
        let excluded = Set(kept)
        let targets = span.targets.filter { page in
            guard excluded.contains(page) else { return true }
            count { $0.mismatches += 1 }
            note(.mismatch, page)
            forget(page)
            return false
        }
        // A stretch that is whole and could not be mapped all the same: nothing smaller will do.
        if kept.isEmpty || targets.isEmpty || targets.count == span.pages.count {
            return targets.forEach(postpone)
        }
        var start = 0
        while start < targets.count {
            var end = start + 1
            while end < targets.count, targets[end] == targets[end - 1] + 1 { end += 1 }
            let pages = targets[start]..<targets[end - 1] + 1
            let location = span.location.advanced(by: pages.lowerBound - span.pages.lowerBound)
            merge([Span(pages: pages, location: location, targets: Array(targets[start..<end]))])
            start = end
        }
    }

    /// The mapping is made: state first, then home's memory.
    func record(_ span: Span, kept: [Int]) {
        var punch: [Range<Int>] = []
        for page in span.pages where records.backing(page) == .home {
            if let last = punch.last, last.upperBound == page {
                punch[punch.count - 1] = last.lowerBound..<page + 1
            } else {
                punch.append(page..<page + 1)
            }
        }
        records.setBacking(span.pages, .frame(span.location))
        var remaining = kept[...]
        for page in span.pages {
            records.setOrphan(page, false)
            guard remaining.first == page else {
                records.setKind(page, .mapped)
                unwatch(page)
                note(.merged, page, span.location.advanced(by: page - span.pages.lowerBound))
                count { $0.pagesMerged += 1 }
                continue
            }
            remaining = remaining.dropFirst()
            // A frame of a lost store, written since: should that not have been reported, the audit does not see it any more.
            if records.kind(page) == .mapped { watch(page) }
            records.setKind(page, .unshared)
            note(.absorbed, page)
            if span.targets.contains(page) {
                count { $0.mismatches += 1 }
                note(.mismatch, page)
                forget(page)
            }
        }
        reached(.recorded)
        if punch.isEmpty { return }
        reached(.punching)
        punch.forEach(mapping.punchHome)
        reached(.punched)
    }

    // MARK: zero pages

    /// Runs of zeros become mappings of the kernel's zero page. No store is needed for them.
    func mergeZero(_ pages: [Int]) {
        var start = 0
        while start < pages.count {
            var end = start + 1
            while end < pages.count, pages[end] == pages[end - 1] + 1, end - start < policy.runLimit {
                end += 1
            }
            mergeZeroRun(pages[start]..<pages[end - 1] + 1)
            start = end
        }
    }

    private func mergeZeroRun(_ pages: Range<Int>) {
        if fatal != nil || stayGivenUp(pages, pages, .zero) { return }
        guard hasRoom(for: records.growth(pages, .zero)) else { return pages.forEach(postpone) }
        var run = pages.lowerBound..<pages.lowerBound
        var mapped = false
        let opened = window([pages]) { replaced in
            // The first stretch that is still zero; what follows a changed page waits for the next pass.
            var end = pages.lowerBound
            while end < pages.upperBound, self.inFlight.count(end) == 0, self.mapping.isZero(end) { end += 1 }
            run = pages.lowerBound..<end
            guard !run.isEmpty else { return }
            do throws(MappingFailure) {
                try self.mapping.mapZero(run)
                mapped = true
                replaced[0] = run.count
            } catch { self.note(error) }
        }
        guard opened, mapped else {
            // The first page changed, and will be reported; the others had no chance.
            return pages.forEach(opened && run.isEmpty ? watch : postpone)
        }
        let hidden = run.filter { records.backing($0) == .home }
        records.setBacking(run, .zero)
        for page in run {
            forget(page)
            unwatch(page)
            note(.zeroed, page)
            records.setKind(page, .zero)
            records.setOrphan(page, false)
        }
        for page in run.upperBound..<max(run.upperBound, pages.upperBound) { watch(page) }
        if hidden.count == run.count {
            mapping.punchHome(run)
        } else {
            hidden.forEach { mapping.punchHome($0..<$0 + 1) }
        }
    }

    // MARK: the window itself

    /// Runs `body` while nobody can write the pages. It says of each stretch how many pages from its start on it mapped
    /// anew.
    /// - Returns: false when the window could not be opened.
    func window(_ stretches: [Range<Int>], _ body: (inout [Int]) -> Void) -> Bool {
        var replaced = [Int](repeating: 0, count: stretches.count)
        let opened: UInt64
        var isStop = false
        switch policy.window {
        case .pause:
            let pauses = pausesInWindows
            if pauses { writers.pauseWriters() }
            opened = monotonicNanoseconds()
            reached(.windowOpen)
            body(&replaced)
            if pauses { writers.resumeWriters() }
            isStop = true
        case .userfaultfd:
            do throws(LinuxError) {
                for pages in stretches { try mapping.prepareWindow(pages) }
                opened = monotonicNanoseconds()
                for pages in stretches { try mapping.protect(pages) }
            } catch {
                for pages in stretches { mapping.release(pages, replaced: false) }
                return false
            }
            reached(.windowOpen)
            body(&replaced)
            for (pages, count) in zip(stretches, replaced) {
                mapping.release(pages.prefix(count), replaced: true)
                mapping.release(pages.dropFirst(count), replaced: false)
            }
        }
        let length = monotonicNanoseconds() - opened
        if isStop {
            noteStop(length)
        } else {
            count { $0.windows.record(length) }
        }
        // Each stretch is protected, and mapped anew or made writable again.
        disturbances.calls += stretches.count * (isStop ? 1 : 2)
        return true
    }
}
