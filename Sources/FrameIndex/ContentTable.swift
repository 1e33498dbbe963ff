import FrameStore

/// The index by content: (hash) -> a short chain of entries, each a frame or a sighting.
///
/// Clients choose the hashes, and a hostile one chooses many that would fall into one bucket, so buckets go by a second,
/// keyed hash (SipHash-1-3) whose key stays in the broker. The table grows by one bucket at a time (linear
/// hashing), so that no single insertion is long.
struct ContentTable {
    /// A content. 32 bytes.
    struct Entry {
        var hash: ContentHash
        /// The frame's place, and its parity at `parity`; for a sighting, the sighter: client << 32 | page.
        var place: UInt64
        /// References to the frame; 0 for a sighting.
        var references: UInt32
        /// Next entry in the bucket, 0 at the end; next free entry.
        fileprivate(set) var next: UInt32

        fileprivate static let parity: UInt64 = 1 << 63
        /// Of a frame; so is its parity, which changes with it.
        var slot: FrameLocation { FrameLocation(place & ~Self.parity) }
        var parity: Bool { place & Self.parity != 0 }
    }
    /// Numbers of entries stay below this.
    static let capacity: UInt32 = 1 << 29

    /// Entries a bucket, on average: two keep the table at 34 bytes for each content.
    private static let load: UInt64 = 2
    private static let chunkShift: UInt32 = 12
    private static let chunkMask: UInt32 = (1 << chunkShift) - 1

    private var chunks: [[Entry]] = []
    /// Entry 0 is never used.
    private var used: UInt32 = 1
    private var free: UInt32 = 0
    private(set) var count = 0

    private var buckets: [[UInt32]] = []
    private var bucketCount: UInt64 = 0
    /// Half of the next power of two: buckets below `bucketCount - level` are split already.
    private var level: UInt64
    private let keys: SipHash

    /// - Parameters:
    ///   - key: random, known to nobody else.
    ///   - initialBuckets: a power of two.
    init(key: UInt64, initialBuckets: UInt64 = 1024) {
        keys = SipHash(key, UInt64.random(in: 0...UInt64.max))
        level = initialBuckets
        chunks.append([Entry(hash: ContentHash(low: 0, high: 0), place: 0, references: 0, next: 0)])
        for _ in 0..<initialBuckets { appendBucket() }
    }

    subscript(index: UInt32) -> Entry {
        get { chunks[Int(index >> Self.chunkShift)][Int(index & Self.chunkMask)] }
        set { chunks[Int(index >> Self.chunkShift)][Int(index & Self.chunkMask)] = newValue }
    }

    mutating func setPlace(_ place: UInt64, of index: UInt32) {
        chunks[Int(index >> Self.chunkShift)][Int(index & Self.chunkMask)].place = place
    }
    mutating func setSlot(_ slot: FrameLocation, parity: Bool, of index: UInt32) {
        setPlace(slot.value | (parity ? Entry.parity : 0), of: index)
    }
    mutating func setReferences(_ references: UInt32, of index: UInt32) {
        chunks[Int(index >> Self.chunkShift)][Int(index & Self.chunkMask)].references = references
    }
    private mutating func setNext(_ next: UInt32, of index: UInt32) {
        chunks[Int(index >> Self.chunkShift)][Int(index & Self.chunkMask)].next = next
    }

    /// The first entry with this hash, or the one after `index`; 0 when there is none.
    func find(_ hash: ContentHash, after index: UInt32 = 0) -> UInt32 {
        var index = index == 0 ? head(bucket(hash)) : self[index].next
        while index != 0 {
            let entry = self[index]
            if entry.hash == hash { return index }
            index = entry.next
        }
        return 0
    }

    /// Entries that a search for this hash passes at most.
    func chainLength(of hash: ContentHash) -> Int {
        var length = 0
        var index = head(bucket(hash))
        while index != 0 {
            length += 1
            index = self[index].next
        }
        return length
    }

    /// Enters a content without references; nil when the table is full.
    mutating func insert(_ hash: ContentHash, place: UInt64) -> UInt32? {
        guard let index = allocate() else { return nil }
        count += 1
        if UInt64(count) > bucketCount * Self.load { split() }
        let bucket = bucket(hash)
        self[index] = Entry(hash: hash, place: place, references: 0, next: head(bucket))
        setHead(index, of: bucket)
        return index
    }

    mutating func remove(_ index: UInt32) {
        unlink(index)
        count -= 1
        self[index] = Entry(hash: ContentHash(low: 0, high: 0), place: 0, references: 0, next: free)
        free = index
    }

    private mutating func unlink(_ index: UInt32) {
        let entry = self[index]
        let bucket = bucket(entry.hash)
        if head(bucket) == index {
            setHead(entry.next, of: bucket)
        } else {
            var before = head(bucket)
            while self[before].next != index { before = self[before].next }
            setNext(entry.next, of: before)
        }
    }

    private mutating func allocate() -> UInt32? {
        if free != 0 {
            defer { free = self[free].next }
            return free
        }
        guard used < Self.capacity else { return nil }
        if used & Self.chunkMask == 0 {
            chunks.append([])
            chunks[chunks.count - 1].reserveCapacity(1 << Int(Self.chunkShift))
        }
        chunks[chunks.count - 1].append(
            Entry(hash: ContentHash(low: 0, high: 0), place: 0, references: 0, next: 0))
        defer { used += 1 }
        return used
    }

    // MARK: buckets

    private func bucket(_ hash: ContentHash) -> UInt64 {
        let value = keys.hash(hash.low, hash.high)
        let bucket = value & (level * 2 - 1)
        return bucket < bucketCount ? bucket : value & (level - 1)
    }

    private func head(_ bucket: UInt64) -> UInt32 { buckets[Int(bucket >> 12)][Int(bucket & 4095)] }
    private mutating func setHead(_ index: UInt32, of bucket: UInt64) {
        buckets[Int(bucket >> 12)][Int(bucket & 4095)] = index
    }
    private mutating func appendBucket() {
        if bucketCount & 4095 == 0 {
            buckets.append([])
            buckets[buckets.count - 1].reserveCapacity(4096)
        }
        buckets[buckets.count - 1].append(0)
        bucketCount += 1
    }

    /// Adds a bucket and moves into it what belongs there from the one bucket that it splits.
    private mutating func split() {
        if bucketCount == level * 2 { level *= 2 }
        let source = bucketCount - level
        appendBucket()
        var index = head(source)
        setHead(0, of: source)
        while index != 0 {
            let entry = self[index]
            let target = bucket(entry.hash)
            setNext(head(target), of: index)
            setHead(index, of: target)
            index = entry.next
        }
    }
}

/// SipHash-1-3 (Aumasson and Bernstein, "SipHash: a fast short-input PRF") of two words. The standard library's `Hasher` is
/// the same function for any input, at three times the price.
struct SipHash {
    private let first: UInt64
    private let second: UInt64

    /// - Parameters: the key, random.
    init(_ first: UInt64, _ second: UInt64) {
        self.first = first
        self.second = second
    }

    private struct State {
        var v0, v1, v2, v3: UInt64

        mutating func round() {
            v0 &+= v1
            v1 = (v1 << 13 | v1 >> 51) ^ v0
            v0 = v0 << 32 | v0 >> 32
            v2 &+= v3
            v3 = (v3 << 16 | v3 >> 48) ^ v2
            v0 &+= v3
            v3 = (v3 << 21 | v3 >> 43) ^ v0
            v2 &+= v1
            v1 = (v1 << 17 | v1 >> 47) ^ v2
            v2 = v2 << 32 | v2 >> 32
        }
        mutating func compress(_ word: UInt64) {
            v3 ^= word
            round()
            v0 ^= word
        }
    }

    func hash(_ low: UInt64, _ high: UInt64) -> UInt64 {
        var state = State(
            v0: first ^ 0x736f_6d65_7073_6575, v1: second ^ 0x646f_7261_6e64_6f6d,
            v2: first ^ 0x6c79_6765_6e65_7261, v3: second ^ 0x7465_6462_7974_6573)
        state.compress(low)
        state.compress(high)
        // The input's length, 16 bytes.
        state.compress(16 << 56)
        state.v2 ^= 0xff
        for _ in 0..<3 { state.round() }
        return state.v0 ^ state.v1 ^ state.v2 ^ state.v3
    }
}
