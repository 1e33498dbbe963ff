internal import GuestMemory
internal import LinuxHost

/// Step 2 of a pass: merged pages that were written have a private copy now, which the page map proves. And, round and
/// round, the same for all merged pages, whether or not a write was reported.
final class Auditor {
    /// Pages in a row that are looked up in the page map though nothing is asked about them.
    private static let gapInLook = 32
    /// Pages that are looked up at a time.
    private static let lookLimit = 8192

    private let mapping: any GuestMapping
    private let pages: GuestPages
    private let tracker: DirtyTracker
    private let conditions: PassConditions
    /// Merged pages that were reported as written, and were not private when that was looked up.
    private let rechecks: PageSet
    private var cursor = 0

    /// - Throws: when there is no address space for its set of pages.
    init(
        _ mapping: any GuestMapping, _ pages: GuestPages, _ tracker: DirtyTracker,
        _ conditions: PassConditions
    ) throws(LinuxError) {
        (self.mapping, self.pages, self.tracker, self.conditions) = (mapping, pages, tracker, conditions)
        rechecks = try PageSet(pageCount: pages.count)
    }

    /// Has a merged page looked up before the next harvest is accounted for.
    func recheck(_ page: Int) { rechecks.insert(page) }

    /// Every page that the harvest reported: a merged one is proved private or looked up again next time; of another one the
    /// store knows nothing true any more. All that was cleared is watched.
    /// - Returns: how many pages were reported.
    func account() -> Int {
        while let page = rechecks.popFirst() {
            if pages.isMerged(page), mapping.arePrivate(page..<page + 1)[0] { unshare(page) }
        }
        var reported = 0
        for block in tracker.blocks where tracker.written(in: block) != 0 {
            let isPrivate = privatePages(block)
            for number in BitNumbers(tracker.written(in: block)) {
                account(block * 64 + number, isPrivate: isPrivate & 1 << UInt64(number) != 0)
                reported += 1
            }
        }
        return reported
    }

    private func account(_ page: Int, isPrivate: Bool) {
        switch pages.kind(page) {
        case .mapped, .zero:
            if isPrivate { pages.unshare(page) } else { rechecks.insert(page) }
        case .home, .unshared: pages.forget(page)
        case .untouched: break
        }
        switch pages.kind(page) {
        case .home, .unshared: if tracker.isCleared(page) { tracker.watch(page) }
        case .mapped, .zero, .untouched: break
        }
    }

    /// Which of a block's pages that are reported as written and were merged have a private copy now, by one look.
    private func privatePages(_ block: Int) -> UInt64 {
        var asked: UInt64 = 0
        for number in BitNumbers(tracker.written(in: block)) where pages.isMerged(block * 64 + number) {
            asked |= 1 << UInt64(number)
        }
        if asked == 0 { return 0 }
        let first = block * 64 + asked.trailingZeroBitCount
        let last = block * 64 + 63 - asked.leadingZeroBitCount
        var found: UInt64 = 0
        for (offset, isPrivate) in mapping.arePrivate(first..<last + 1).enumerated() where isPrivate {
            found |= 1 << UInt64(first + offset - block * 64)
        }
        return found & asked
    }

    /// Looks at a slice of all pages, round and round, for what was never reported: merged pages that are private now, since
    /// a missed report would keep a reference for ever, and pages that a guest's read alone gave memory at home.
    /// - Returns: how many were found.
    func audit() -> Int {
        let passes = max(1, conditions.policy.auditPasses)
        let slice = cursor..<min(cursor + (pages.count + passes - 1) / passes, pages.count)
        cursor = slice.upperBound == pages.count ? 0 : slice.upperBound
        return proveAgain(slice) + tracker.findMemory(in: slice)
    }

    private func proveAgain(_ slice: Range<Int>) -> Int {
        var found = 0
        var page = slice.lowerBound
        while page < slice.upperBound {
            guard pages.isMerged(page) else {
                page += 1
                continue
            }
            let look = page..<endOfLook(from: page, slice.upperBound)
            for (offset, isPrivate) in mapping.arePrivate(look).enumerated()
            where isPrivate && pages.isMerged(page + offset) {
                unshare(page + offset)
                found += 1
            }
            page = look.upperBound
        }
        return found
    }

    /// Up to the last merged page before a wider gap: a look costs more than some pages in vain.
    private func endOfLook(from page: Int, _ end: Int) -> Int {
        var stop = page + 1
        var next = stop
        while next < end, next - stop <= Self.gapInLook, next - page < Self.lookLimit {
            if pages.isMerged(next) { stop = next + 1 }
            next += 1
        }
        return stop
    }

    private func unshare(_ page: Int) {
        pages.unshare(page)
        tracker.watch(page)
    }
}
