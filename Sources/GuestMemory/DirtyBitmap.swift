public import LinuxHost

/// One bit a page, set by any thread without a lock: what the VMM itself wrote (KVM's dirty log does not see that).
///
/// Words are allocated lazily by the kernel, so pages never written cost nothing.
public final class DirtyBitmap: Sendable {
    public let pageCount: Int
    private let words: AtomicWords

    /// - Throws: when the host has no address space left.
    public init(pageCount: Int) throws(LinuxError) {
        self.pageCount = pageCount
        words = try AtomicWords(count: (pageCount + 63) / 64)
    }

    /// Marks pages; those out of range are ignored by contract of the caller (precondition).
    public func mark(_ pages: Range<Int>) {
        precondition(pages.lowerBound >= 0 && pages.upperBound <= pageCount, "pages are RAM")
        for page in pages { words.or(1 << UInt64(page & 63), at: page >> 6) }
    }

    /// Whether a page is marked.
    public func isMarked(_ page: Int) -> Bool {
        precondition(page >= 0 && page < pageCount, "pages are RAM")
        return words.load(page >> 6) & (1 << UInt64(page & 63)) != 0
    }

    /// Takes all marks: each is seen by exactly one harvest. Adds them to `bitmap`, 64 pages a word.
    public func harvest(into bitmap: inout [UInt64]) {
        precondition(bitmap.count >= (pageCount + 63) / 64, "one bit a page")
        for index in 0..<words.count where words.load(index) != 0 {
            bitmap[index] |= words.exchange(0, at: index)
        }
    }
}

/// Pages that a device is about to write or is writing (a count each): no candidates for sharing.
public final class InFlightCounts: Sendable {
    private let words: AtomicWords
    private let pageCount: Int

    public init(pageCount: Int) throws(LinuxError) {
        self.pageCount = pageCount
        words = try AtomicWords(count: (pageCount + 1) / 2)
    }

    /// Counts each page of `pages` once more.
    public func begin(_ pages: Range<Int>) { change(pages, by: 1) }
    /// Takes back one ``begin(_:)``.
    public func end(_ pages: Range<Int>) { change(pages, by: -1) }

    /// Writes now in flight to a page.
    public func count(_ page: Int) -> Int {
        precondition(page >= 0 && page < pageCount, "pages are RAM")
        return Int(truncatingIfNeeded: words.load(page >> 1) >> (UInt64(page & 1) * 32) & 0xffff_ffff)
    }

    private func change(_ pages: Range<Int>, by delta: Int64) {
        precondition(pages.lowerBound >= 0 && pages.upperBound <= pageCount, "pages are RAM")
        for page in pages {
            // Two 32-bit counts share a word; a count never falls below zero, so no borrow crosses over.
            words.add(UInt64(bitPattern: delta) << (UInt64(page & 1) * 32), at: page >> 1)
        }
    }
}
