// How the store works. Everything it knows of a client hangs on one of the client's pages, so a client can never make it
// hold more than its own size, and a dead client's references are found by walking its pages.
//
//   page:   nothing --sighted--> sighted by it --published by another--> leased --forgotten--> nothing
//              |                                                           ^
//              +---------- known content, or own publication --------------+
//
//   frame:  written --last reference gone--> retired --every client has spoken once more--> discarded, slot free
//
// A frame is never overwritten in place: its slot is punched first, and that only after all clients that might have
// learned of it have sent another batch.

/// Names a client of a store.
public struct StoreClient: Hashable, Sendable {
    public let value: UInt32
    public init(_ value: UInt32) { self.value = value }
}

/// The logic of a domain's store, without sockets or files: index by content, frames, references by client and page.
/// Not thread-safe: its owner calls it from one thread.
public final class FrameStoreCore {
    /// Contents with one hash that are remembered at a time; more are refused (an attack, or a test's constant hash).
    public static let chainLimit = 4
    /// Patterns of uniform pages that get runs of copies; more are treated like any content.
    public static let patternLimit = 64
    /// Copies of a uniform page: as many as a run may have neighbours.
    static let patternRun = 512
    /// Promotions in one reply.
    static let promotionLimit = 512

    private enum Tag {
        static let none: UInt32 = 0
        static let leased: UInt32 = 1 << 31
        static let index: UInt32 = ~(1 << 31)
    }

    /// A content: sighted by one page, or a frame. 40 bytes.
    private struct Entry {
        var hash: ContentHash
        /// The frame's location; for a sighting, the sighter: client << 32 | page.
        var place: UInt64
        /// References to the frame; 0 for a sighting.
        var references: UInt32
        /// Next entry in the bucket, 0 at the end; next free entry.
        var next: UInt32
    }

    private final class Client {
        let segment: UInt32
        /// For each page: 0, or the number of its entry with the tag `leased`; uniform pages: see `patternBit`.
        var pages: [UInt32]
        var promotions: [ClientPage] = []
        /// The generation at its last batch.
        var generation: UInt64
        /// Its connection is closed but its process may still map frames: it keeps its references and hears nothing.
        var isSilent = false
        init(segment: UInt32, pageCount: Int, generation: UInt64) {
            self.segment = segment
            pages = [UInt32](repeating: 0, count: pageCount)
            self.generation = generation
        }
    }

    private let backing: any FrameBacking
    private let hash: ([UInt8]) -> ContentHash
    /// Entry 0 is never used.
    private var entries: [Entry]
    private var freeEntry: UInt32 = 0
    private var buckets: [UInt32]
    private var entryCount = 0
    private var clients: [StoreClient: Client] = [:]
    private var nextSegment: UInt32 = 1
    /// Slots of each segment that hold a frame or a retired one.
    private var occupied: [UInt32: PageBitmap] = [:]
    private var overflowNext: UInt64 = 0
    private var overflowFree: [UInt64] = []
    private var patterns: [UInt64: UInt32] = [:]
    private var patternSlots: [UInt32: PageBitmap] = [:]
    private var retired: [(location: FrameLocation, count: Int, generation: UInt64)] = []
    private var generation: UInt64 = 1

    public private(set) var statistics = StoreStatistics()

    /// - Parameters:
    ///   - backing: where frames are kept.
    ///   - hash: the domain's keyed hash of a page; the store hashes what it copied, whatever the client said.
    public init(backing: any FrameBacking, hash: @escaping ([UInt8]) -> ContentHash) {
        self.backing = backing
        self.hash = hash
        let empty = Entry(hash: ContentHash(low: 0, high: 0), place: 0, references: 0, next: 0)
        entries = [empty]
        buckets = [UInt32](repeating: 0, count: 1024)
    }

    // MARK: clients

    /// A client joins with a guest of so many pages.
    public func join(_ name: StoreClient, pageCount: Int) {
        precondition(clients[name] == nil && pageCount <= Int(FrameLocation.segmentSpan), "a new client of legal size")
        clients[name] = Client(segment: nextSegment, pageCount: pageCount, generation: generation)
        nextSegment += 1
        statistics.clients = clients.count
    }

    /// The client's process is gone: all it knew and held goes with it. Only when that is certain.
    public func leave(_ name: StoreClient) {
        guard let client = clients[name] else { return }
        for page in client.pages.indices where client.pages[page] != 0 { forget(name, client, ClientPage(page)) }
        clients[name] = nil
        if occupied[client.segment]?.population == 0 { occupied[client.segment] = nil }
        statistics.clients = clients.count
        discardRetired()
    }

    /// The client cannot speak any more, but its process may live: its references stay until ``leave(_:)``.
    public func silence(_ name: StoreClient) {
        guard let client = clients[name] else { return }
        client.isSilent = true
        client.promotions = []
        // What it only sighted nobody can promote to it.
        for page in client.pages.indices where client.pages[page] != 0 && client.pages[page] & Tag.leased == 0 {
            forget(name, client, ClientPage(page))
        }
        discardRetired()
    }

    // MARK: batches

    /// Carries out a client's batch. Whatever it says, only its own pages are touched.
    /// - Parameter staging: the bytes of a staging slot as they are now, or nil when there are not 4096 of them.
    /// - Returns: nil when the client is unknown or names a page that it does not have: it breaks the rules.
    public func exchange(
        _ name: StoreClient, _ batch: StoreBatch, staging: (UInt32) -> [UInt8]?
    ) -> StoreReply? {
        guard let client = clients[name], !client.isSilent, isLegal(batch, for: client) else { return nil }
        generation += 1
        client.generation = generation
        var reply = StoreReply()
        for page in batch.forgotten { forget(name, client, page) }
        reply.sightings = batch.sightings.map { sight(name, client, $0.page, $0.hash) }
        reply.uniform = batch.uniform.map { shareUniform(name, client, $0.page, $0.pattern) }
        reply.publications = batch.publications.map { publication in
            guard let bytes = staging(publication.slot), bytes.count == 4096 else { return .refused }
            return publish(name, client, publication.page, bytes)
        }
        takePromotions(client, &reply)
        discardRetired()
        return reply
    }

    private func isLegal(_ batch: StoreBatch, for client: Client) -> Bool {
        let count = client.pages.count
        return batch.forgotten.allSatisfy { $0 < count } && batch.sightings.allSatisfy { $0.page < count }
            && batch.uniform.allSatisfy { $0.page < count } && batch.publications.allSatisfy { $0.page < count }
    }

    private func takePromotions(_ client: Client, _ reply: inout StoreReply) {
        var taken = 0
        for page in client.promotions {
            if reply.promotions.count == Self.promotionLimit { break }
            taken += 1
            let tag = client.pages[Int(page)]
            // Forgotten since: the lease is gone as well.
            guard tag & Tag.leased != 0 else { continue }
            let location = FrameLocation(entries[Int(tag & Tag.index)].place)
            reply.promotions.append(StoreReply.Promotion(page: page, location: location))
        }
        client.promotions.removeFirst(taken)
        reply.hasMore = !client.promotions.isEmpty
    }

    // MARK: one page

    private func sight(_ name: StoreClient, _ client: Client, _ page: ClientPage, _ hash: ContentHash) -> StoreAnswer {
        forget(name, client, page)
        var length = 0
        var index = buckets[bucket(hash)]
        while index != 0 {
            let entry = entries[Int(index)]
            if entry.hash == hash {
                if entry.references > 0 { return lease(client, page, index) }
                // Seen before: now it pays to keep it. The sighter learns of it when it is published.
                return .publish
            }
            index = entry.next
            length += 1
        }
        guard let new = insert(hash) else { return .refused }
        entries[Int(new)].place = UInt64(name.value) << 32 | UInt64(page)
        client.pages[Int(page)] = new
        statistics.sightings += 1
        return .recorded
    }

    private func publish(_ name: StoreClient, _ client: Client, _ page: ClientPage, _ bytes: [UInt8]) -> StoreAnswer {
        forget(name, client, page)
        let hash = hash(bytes)
        var sameHash = 0
        var sighting: UInt32 = 0
        var index = buckets[bucket(hash)]
        while index != 0 {
            let entry = entries[Int(index)]
            if entry.hash == hash {
                sameHash += 1
                if entry.references == 0 {
                    sighting = index
                } else if backing.matches(bytes, at: FrameLocation(entry.place)) {
                    return lease(client, page, index)
                }
            }
            index = entry.next
        }
        // Nobody else has it (any more): a frame with one mapper would save nothing.
        guard sighting != 0, sameHash <= Self.chainLimit else { return .refused }
        return makeFrame(client, page, sighting, bytes)
    }

    /// Turns a sighting into a frame, which gets the sighter's place if that is free: the guest that was here first gives
    /// most frames their places, so its neighbours and theirs stay neighbours.
    private func makeFrame(_ client: Client, _ page: ClientPage, _ index: UInt32, _ bytes: [UInt8]) -> StoreAnswer {
        let place = entries[Int(index)].place
        let (sighter, sighted) = (StoreClient(UInt32(place >> 32)), ClientPage(truncatingIfNeeded: place))
        guard let donor = clients[sighter] else { return .refused }
        let location =
            slot(donor.segment, sighted, donor.pages.count)
            ?? slot(client.segment, page, client.pages.count) ?? overflowSlot()
        do throws(FrameStoreError) { try backing.write(bytes, at: location) } catch {
            release(location)
            return .refused
        }
        statistics.sightings -= 1
        statistics.frames += 1
        entries[Int(index)].place = location.value
        entries[Int(index)].references = 1
        statistics.references += 1
        donor.pages[Int(sighted)] = index | Tag.leased
        donor.promotions.append(sighted)
        return lease(client, page, index)
    }

    private func lease(_ client: Client, _ page: ClientPage, _ index: UInt32) -> StoreAnswer {
        guard entries[Int(index)].references < UInt32.max else { return .refused }
        entries[Int(index)].references += 1
        statistics.references += 1
        client.pages[Int(page)] = index | Tag.leased
        let entry = entries[Int(index)]
        guard patternSlots[index] != nil else { return .frame(FrameLocation(entry.place)) }
        return .frame(FrameLocation(entry.place).advanced(by: Int(page) % Self.patternRun))
    }

    private func forget(_ name: StoreClient, _ client: Client, _ page: ClientPage) {
        let tag = client.pages[Int(page)]
        guard tag != 0 else { return }
        client.pages[Int(page)] = 0
        let index = tag & Tag.index
        if tag & Tag.leased == 0 {
            statistics.sightings -= 1
            remove(index)
            return
        }
        entries[Int(index)].references -= 1
        statistics.references -= 1
        if entries[Int(index)].references == 0 { retire(index) }
    }

    // MARK: uniform pages

    /// Copies of a uniform page, side by side, so that a run of such pages is one mapping: page p gets copy p mod 512.
    private func shareUniform(
        _ name: StoreClient, _ client: Client, _ page: ClientPage, _ pattern: UInt64
    ) -> StoreAnswer {
        forget(name, client, page)
        guard pattern != 0, let index = patterns[pattern] ?? makePattern(pattern) else { return .refused }
        let copy = Int(page) % Self.patternRun
        if patternSlots[index]?.contains(copy) == false {
            let location = FrameLocation(entries[Int(index)].place).advanced(by: copy)
            do throws(FrameStoreError) { try backing.write(Self.bytes(of: pattern), at: location) } catch {
                if entries[Int(index)].references == 0 { retire(index) }
                return .refused
            }
            patternSlots[index]?.insert(copy)
            statistics.frames += 1
        }
        return lease(client, page, index)
    }

    private func makePattern(_ pattern: UInt64) -> UInt32? {
        guard patterns.count < Self.patternLimit else { return nil }
        // Not in the index by content: found by its pattern alone.
        let index = allocateEntry()
        let base = (overflowNext + UInt64(Self.patternRun) - 1) / UInt64(Self.patternRun) * UInt64(Self.patternRun)
        overflowNext = base + UInt64(Self.patternRun)
        entries[Int(index)] = Entry(
            hash: ContentHash(low: pattern, high: 0), place: base, references: 0, next: 0)
        patterns[pattern] = index
        patternSlots[index] = PageBitmap(count: Self.patternRun)
        return index
    }

    static func bytes(of pattern: UInt64) -> [UInt8] {
        let word = (0..<8).map { UInt8(truncatingIfNeeded: pattern >> UInt64($0 * 8)) }
        return (0..<512).flatMap { _ in word }
    }

    // MARK: frames and slots

    private func retire(_ index: UInt32) {
        let entry = entries[Int(index)]
        if let slots = patternSlots.removeValue(forKey: index) {
            patterns[entry.hash.low] = nil
            statistics.frames -= slots.population
            statistics.retired += slots.population
            for copy in 0..<Self.patternRun where slots.contains(copy) {
                retired.append((FrameLocation(entry.place).advanced(by: copy), 1, generation))
            }
            freeEntryAt(index)
            return
        }
        statistics.frames -= 1
        statistics.retired += 1
        retired.append((FrameLocation(entry.place), 1, generation))
        remove(index)
    }

    /// Punches the frames that no client can think of as valid any more.
    private func discardRetired() {
        guard !retired.isEmpty else { return }
        let safe = clients.values.lazy.filter { !$0.isSilent }.map(\.generation).min() ?? UInt64.max
        var kept: [(location: FrameLocation, count: Int, generation: UInt64)] = []
        for item in retired {
            guard item.generation < safe else {
                kept.append(item)
                continue
            }
            backing.discard(item.location, count: item.count)
            statistics.retired -= item.count
            release(item.location)
        }
        retired = kept
    }

    private func slot(_ segment: UInt32, _ page: ClientPage, _ pageCount: Int) -> FrameLocation? {
        if occupied[segment, default: PageBitmap(count: pageCount)].contains(Int(page)) { return nil }
        occupied[segment, default: PageBitmap(count: pageCount)].insert(Int(page))
        return FrameLocation(segment: segment, page: UInt64(page))
    }

    private func overflowSlot() -> FrameLocation {
        if let free = overflowFree.popLast() { return FrameLocation(free) }
        defer { overflowNext += 1 }
        return FrameLocation(overflowNext)
    }

    private func release(_ location: FrameLocation) {
        if location.segment == 0 {
            overflowFree.append(location.value)
        } else {
            occupied[location.segment]?.remove(Int(location.value % FrameLocation.segmentSpan))
        }
    }

    // MARK: index by content

    private func bucket(_ hash: ContentHash) -> Int { Int(truncatingIfNeeded: hash.low) & (buckets.count - 1) }

    /// A new entry in its chain, or nil when too many contents have this hash.
    private func insert(_ hash: ContentHash) -> UInt32? {
        var same = 0
        var index = buckets[bucket(hash)]
        while index != 0 {
            if entries[Int(index)].hash == hash { same += 1 }
            index = entries[Int(index)].next
        }
        guard same < Self.chainLimit else { return nil }
        if entryCount >= buckets.count { grow() }
        let new = allocateEntry()
        let head = bucket(hash)
        entries[Int(new)] = Entry(hash: hash, place: 0, references: 0, next: buckets[head])
        buckets[head] = new
        entryCount += 1
        return new
    }

    private func remove(_ index: UInt32) {
        let head = bucket(entries[Int(index)].hash)
        if buckets[head] == index {
            buckets[head] = entries[Int(index)].next
        } else {
            var before = buckets[head]
            while entries[Int(before)].next != index { before = entries[Int(before)].next }
            entries[Int(before)].next = entries[Int(index)].next
        }
        entryCount -= 1
        freeEntryAt(index)
    }

    private func allocateEntry() -> UInt32 {
        if freeEntry != 0 {
            defer { freeEntry = entries[Int(freeEntry)].next }
            return freeEntry
        }
        entries.append(entries[0])
        return UInt32(entries.count - 1)
    }

    private func freeEntryAt(_ index: UInt32) {
        entries[Int(index)].references = 0
        entries[Int(index)].next = freeEntry
        freeEntry = index
    }

    private func grow() {
        let old = buckets
        buckets = [UInt32](repeating: 0, count: old.count * 2)
        for head in old {
            var index = head
            while index != 0 {
                let next = entries[Int(index)].next
                let target = bucket(entries[Int(index)].hash)
                entries[Int(index)].next = buckets[target]
                buckets[target] = index
                index = next
            }
        }
    }
}

/// Counts of a store; pages.
public struct StoreStatistics: Equatable, Sendable {
    /// Frames that are referenced (KSM's pages_shared).
    public var frames = 0
    /// References by pages of clients; less `frames`, what is saved (KSM's pages_sharing).
    public var references = 0
    /// Contents seen once.
    public var sightings = 0
    /// Frames without references that wait for their memory to be freed.
    public var retired = 0
    public var clients = 0
    public init() {}
}

/// A set of small numbers, a bit each.
struct PageBitmap {
    private var words: [UInt64]
    private(set) var population = 0
    init(count: Int) { words = [UInt64](repeating: 0, count: (count + 63) / 64) }
    func contains(_ page: Int) -> Bool { words[page >> 6] & (1 << UInt64(page & 63)) != 0 }
    mutating func insert(_ page: Int) {
        if !contains(page) { population += 1 }
        words[page >> 6] |= 1 << UInt64(page & 63)
    }
    mutating func remove(_ page: Int) {
        if contains(page) { population -= 1 }
        words[page >> 6] &= ~(1 << UInt64(page & 63))
    }
}
