/// The numbers of the bits that are set, lowest first.
struct BitNumbers: Sequence, IteratorProtocol {
    private var bits: UInt64
    init(_ bits: UInt64) { self.bits = bits }

    mutating func next() -> Int? {
        if bits == 0 { return nil }
        defer { bits &= bits - 1 }
        return bits.trailingZeroBitCount
    }
}

/// Pages in a row, of a list in order.
/// - Parameter limit: pages in one at most.
func runs(of pages: some Sequence<Int>, limit: Int = .max) -> [Range<Int>] {
    var found: [Range<Int>] = []
    for page in pages {
        if let last = found.last, last.upperBound == page, last.count < limit {
            found[found.count - 1] = last.lowerBound..<page + 1
        } else {
            found.append(page..<page + 1)
        }
    }
    return found
}
