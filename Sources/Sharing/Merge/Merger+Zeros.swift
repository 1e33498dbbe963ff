internal import GuestMemory

// Pages of zeros need no store: the kernel has a page of zeros for everybody.
extension Merger {
    /// Runs of zeros become mappings of the kernel's zero page.
    func mergeZeros(_ found: [Int]) {
        for run in runs(of: found, limit: conditions.policy.runLimit) { mergeZeros(run) }
    }

    private func mergeZeros(_ run: Range<Int>) {
        if conditions.fatal != nil || staysGivenUp(run, run, .zero) { return }
        guard budget.hasRoom(for: pages.growth(run, .zero)) else { return run.forEach(tracker.postpone) }
        var zeros = run.lowerBound..<run.lowerBound
        var isMapped = false
        let opened = window.protecting([run]) { replaced in
            // The first stretch that is still zero; what follows a changed page waits for the next pass.
            var end = run.lowerBound
            while end < run.upperBound, inFlight.count(end) == 0, window.mapping.isZero(end) { end += 1 }
            zeros = run.lowerBound..<end
            guard !zeros.isEmpty else { return }
            do throws(MappingFailure) {
                try window.mapping.mapZero(zeros)
                isMapped = true
                replaced[0] = zeros.count
            } catch { window.note(error) }
        }
        guard opened, isMapped else {
            // The first page changed, and will be reported; the others had no chance.
            return run.forEach(opened && zeros.isEmpty ? tracker.watch : tracker.postpone)
        }
        let hidden = pages.zero(zeros)
        for page in zeros {
            tracker.unwatch(page)
            journal.note(.zeroed, page)
        }
        for page in zeros.upperBound..<run.upperBound { tracker.watch(page) }
        hidden.forEach(window.mapping.punchHome)
    }
}
