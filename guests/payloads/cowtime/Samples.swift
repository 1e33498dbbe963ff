import Machine
import PayloadSupport

/// Numbers kept in free pages behind those that are measured.
struct Samples {
    private let pages: PageSet
    private let first: UInt64
    private let capacity: UInt64
    private var count: UInt64 = 0

    /// `count` words in pages `first` and following.
    init(_ pages: PageSet, first: UInt64, count: UInt64) {
        self.pages = pages
        self.first = first
        capacity = count
    }

    /// Empties it and writes where `expected` numbers will go: storing them causes no fault meanwhile.
    mutating func prepare(_ expected: UInt64) {
        precondition(expected <= capacity)
        count = 0
        for index in 0..<expected { self[index] = index | 1 << 63 }
    }

    mutating func append(_ value: UInt64) {
        precondition(count < capacity)
        self[count] = value
        count += 1
    }

    /// The smallest number that at least `percent` of the sorted numbers do not exceed; 0 if there are none.
    func quantile(_ percent: UInt64) -> UInt64 {
        if count == 0 { return 0 }
        return self[(count * percent + 99) / 100 - 1]
    }

    /// Heap sort.
    mutating func sort() {
        if count < 2 { return }
        for root in (0..<count / 2).reversed() { sink(root, below: count) }
        for end in (1..<count).reversed() {
            (self[0], self[end]) = (self[end], self[0])
            sink(0, below: end)
        }
    }

    private mutating func sink(_ start: UInt64, below end: UInt64) {
        var root = start
        while root * 2 + 1 < end {
            var child = root * 2 + 1
            if child + 1 < end && self[child + 1] > self[child] { child += 1 }
            if self[root] >= self[child] { return }
            (self[root], self[child]) = (self[child], self[root])
            root = child
        }
    }

    private subscript(index: UInt64) -> UInt64 {
        get { machine_load64(pages.address(of: first + index / 512) + index % 512 * 8) }
        nonmutating set {
            machine_store64(pages.address(of: first + index / 512) + index % 512 * 8, newValue)
        }
    }
}
