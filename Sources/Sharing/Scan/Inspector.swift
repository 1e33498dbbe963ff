internal import FrameStore
internal import GuestMemory

/// Step 3 of a pass: what pages hold that stayed clean: zeros, one word again and again, or anything else, of which a hash.
final class Inspector {
    struct Findings {
        var zero: [Int] = []
        var uniform: [StoreBatch.UniformPage] = []
        var sightings: [StoreBatch.Sighting] = []
    }

    private let mapping: any GuestMapping
    private let pages: GuestPages
    private let tracker: DirtyTracker
    private let inFlight: InFlightCounts
    private let conditions: PassConditions
    private let journal: EngineJournal

    init(
        _ mapping: any GuestMapping, _ pages: GuestPages, _ tracker: DirtyTracker, _ inFlight: InFlightCounts,
        _ conditions: PassConditions, _ journal: EngineJournal
    ) {
        (self.mapping, self.pages, self.tracker, self.inFlight) = (mapping, pages, tracker, inFlight)
        (self.conditions, self.journal) = (conditions, journal)
    }

    /// Looks at pages, which are not watched any more. The existential call for each page is not felt beside the hash of it.
    func inspect(_ chunk: [Int]) -> Findings {
        var findings = Findings()
        for page in chunk {
            tracker.unwatch(page)
            // Shared already. To ask about a page that has a reference would give that back, under the mapping.
            let kind = pages.kind(page)
            if kind == .zero || kind == .mapped && !pages.isOrphan(page) { continue }
            // A device is writing, or has written and marked the page, and is about to say that it is done.
            if inFlight.count(page) > 0 {
                tracker.watch(page)
                continue
            }
            tracker.volatility.settle(page)
            journal.count { $0.pagesHashed += 1 }
            switch mapping.inspect(page) {
            case .zero: findings.zero.append(page)
            case .uniform(let pattern):
                findings.uniform.append(StoreBatch.UniformPage(page: ClientPage(page), pattern: pattern))
            case .other(let hash):
                findings.sightings.append(StoreBatch.Sighting(page: ClientPage(page), hash: hash))
            }
        }
        return findings
    }

    /// Uniform pages that stand alone are content like any other: copies of their own would save nothing.
    func splitUniform(_ findings: inout Findings) {
        let uniform = findings.uniform
        findings.uniform = []
        var start = 0
        while start < uniform.count {
            var end = start + 1
            while end < uniform.count, uniform[end].pattern == uniform[start].pattern,
                uniform[end].page == uniform[end - 1].page + 1
            { end += 1 }
            let run = uniform[start..<end]
            if isLongRun(Int(uniform[start].page)..<Int(uniform[end - 1].page) + 1, uniform[start].pattern) {
                findings.uniform += run
            } else {
                findings.sightings += run.map { sighting(of: $0.page) }
            }
            start = end
        }
    }

    /// A page as content like any other, whatever it holds.
    func sighting(of page: ClientPage) -> StoreBatch.Sighting {
        StoreBatch.Sighting(page: page, hash: mapping.hash(Int(page)))
    }

    /// Whether pages with a pattern, with their neighbours as they are now, are a run that is worth copies of its own. They are
    /// seldom looked at all together: merged one after the other as any content, each would take a mapping.
    private func isLongRun(_ run: Range<Int>, _ pattern: UInt64) -> Bool {
        func continues(_ page: Int) -> Bool {
            // To look at an untouched page would give it memory.
            switch pages.kind(page) {
            case .untouched, .zero: false
            case .home, .mapped, .unshared: mapping.inspect(page) == .uniform(pattern)
            }
        }
        let length = conditions.policy.uniformRun
        var (start, end) = (run.lowerBound, run.upperBound)
        while end - start < length, end < pages.count, continues(end) { end += 1 }
        while end - start < length, start > 0, continues(start - 1) { start -= 1 }
        return end - start >= length
    }
}
