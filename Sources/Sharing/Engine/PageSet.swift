internal import GuestMemory
internal import LinuxHost

/// A set of pages that never needs memory but for its bits, which cost nothing where none was ever set.
final class PageSet {
    private let words: LazyArray<UInt64>
    private(set) var count = 0
    /// No page of an earlier word is in it.
    private var first = 0

    init(pageCount: Int) throws(LinuxError) { words = try LazyArray(count: (pageCount + 63) / 64) }

    var isEmpty: Bool { count == 0 }

    func contains(_ page: Int) -> Bool { words[page >> 6] & (1 << UInt64(page & 63)) != 0 }

    func insert(_ page: Int) {
        if contains(page) { return }
        words[page >> 6] |= 1 << UInt64(page & 63)
        first = count == 0 ? page >> 6 : min(first, page >> 6)
        count += 1
    }

    func remove(_ page: Int) {
        guard contains(page) else { return }
        words[page >> 6] &= ~(1 << UInt64(page & 63))
        count -= 1
    }

    /// Takes the first page out, in order of number.
    func popFirst() -> Int? {
        if count == 0 { return nil }
        while words[first] == 0 { first += 1 }
        let page = first * 64 + words[first].trailingZeroBitCount
        remove(page)
        return page
    }

    func removeAll() { while popFirst() != nil {} }
}
