public import FrameStore

// How the store works. Everything it knows of a client hangs on one of the client's pages, so a client can never make it
// hold more than its own size (nor more than its owner allows: FrameStoreCore+Room), and a dead client's references are
// found by walking its pages.
//
//   page:   nothing --sighted--> sighted by it --published by another--> leased --forgotten--> nothing
//              |                                                           ^
//              +---------- known content, or own publication --------------+
//
//   frame:  written --last reference gone--> retired --every client has spoken once more--> discarded, slot free
//
// A frame is never overwritten in place: its slot is punched first, and that only after all clients that might have
// learned of it have sent another batch. No call is long: what takes time (walking the pages of a client that left, punching retired frames) is done in slices
// by `sweep`, which the owner calls while `hasWork`.

/// The logic of a domain's store, without sockets or files: index by content, frames, references by client and page.
/// Not thread-safe: its owner calls it from one thread.
public final class FrameStoreCore {
    /// Contents with one hash that are remembered at a time; more are refused (an attack, or a test's constant hash).
    public static let chainLimit = 4
    /// Patterns of uniform pages that get runs of copies; more are treated like any content.
    public static let patternLimit = 64
    /// Clients at a time, those that left and are being forgotten included.
    public static let clientLimit = 8192
    /// Elements of a batch, over all its lists.
    public static let batchLimit = 4096
    /// Publications in a batch, which are also the pages of a staging area.
    public static let stagingSlots = StagingArea.slots
    /// Promotions in one reply.
    public static let promotionLimit = 512
    /// Pages of a client that one look for frames with a single mapper passes, and that it may find.
    static let singleMapperLook = 1 << 15
    public static let singleMapperLimit = 256
    /// Pages of retired frames that may wait for their memory to be freed; beyond it nothing new is published.
    public static let retiredLimit = 1 << 16
    /// Retired frames that one batch frees at most, besides ``sweep(limit:)``.
    private static let discardsPerBatch = 64

    final class Client {
        /// What each of its pages is to the store.
        let map: ClientMap
        /// Pages to be announced by later replies, each at most once: `queued` says which, `pending` which of them still
        /// are what was to be announced.
        var promotions = FIFO<ClientPage>()
        var queued = PageBitmap()
        var pending = PageBitmap()
        /// What ``FrameStoreCore/load(of:)`` may become, and whether it may make frames.
        var room = Int.max
        var mayMakeFrames = true
        /// The generation at its last batch.
        var generation: UInt64
        /// Its connection is closed but its process may still map frames: it keeps its references and hears nothing.
        var isSilent = false
        var isLeaving = false
        /// Its last empty batch was for promotions only.
        var hearsPromotionsOnly = false
        /// Where the look for frames that should not be as they are goes on.
        var singleMapperCursor = 0
        /// ``FrameStoreCore/unrest`` when the current round of looks began, and when the last one began that found nothing
        /// while this client got no further lease; 0: not so.
        var roundUnrest: UInt64 = 0
        var calmUnrest: UInt64 = 0
        init(_ map: ClientMap, generation: UInt64) {
            self.map = map
            self.generation = generation
        }
        var name: StoreClient { map.name }
    }

    let backing: any FrameBacking
    private let hash: ([UInt8]) -> ContentHash
    /// Which page maps which frame, and what is known by content.
    let map: ReverseMap
    var slots = SlotMap()
    var patterns = [Pattern?](repeating: nil, count: FrameStoreCore.patternLimit)
    var patternNumbers: [UInt64: Int] = [:]
    /// Patterns that got runs in the current batch.
    var newPatterns = 0
    /// Page numbers of the places that were left lately, and the generation in which that is forgotten.
    var leftPlaces = PageBitmap()
    var forgetLeftPlaces: UInt64 = 0
    private(set) var clients: [StoreClient: Client] = [:]
    private var leaving = FIFO<(client: Client, next: Int)>()
    private var current: (client: Client, next: Int)?
    var retired = FIFO<Retired>()
    private(set) var generation: UInt64 = 1
    /// Counts what may have left a frame a single mapper, or freed a better place for one.
    var unrest: UInt64 = 1 { didSet { occurrences += 1 } }
    /// Counts what may have made ``wantsToHear(_:)`` true for somebody.
    public internal(set) var occurrences: UInt64 = 0

    public internal(set) var statistics = StoreStatistics()

    /// - Parameters:
    ///   - backing: where frames are kept.
    ///   - indexKey: random and known to nobody else; clients that knew it could make the index slow.
    ///   - hash: the domain's keyed hash of a page; the store hashes what it copied, whatever the client said.
    public init(
        backing: any FrameBacking, indexKey: UInt64 = UInt64.random(in: 0...UInt64.max),
        hash: @escaping ([UInt8]) -> ContentHash
    ) {
        self.backing = backing
        self.hash = hash
        map = ReverseMap(key: indexKey)
        map.lifetime = self
    }

    // MARK: clients

    /// A client joins with a guest of so many pages.
    /// - Returns: false when the number of pages is not possible, or too many clients joined, or their frames are left.
    public func join(_ name: StoreClient, pageCount: Int) -> Bool {
        precondition(clients[name] == nil, "names of clients are not used twice")
        guard pageCount > 0, pageCount <= Int(FrameLocation.segmentSpan), clients.count < Self.clientLimit
        else { return false }
        clients[name] = Client(map.join(name, pageCount: pageCount), generation: generation)
        statistics.clients = clients.count
        return true
    }

    /// The client's process is gone, or gave back everything: all that it knew and held goes with it, in slices
    /// (``sweep(limit:)``); until then it counts as silent. Only when that is certain.
    public func leave(_ name: StoreClient) {
        guard let client = clients[name], !client.isLeaving else { return }
        silence(name)
        client.isLeaving = true
        leaving.append((client, 0))
    }

    /// The client cannot speak any more, but its process may live: its references stay until ``leave(_:)``. What it only
    /// sighted stays in the index, but whoever sees the same takes the sighting over.
    public func silence(_ name: StoreClient) {
        guard let client = clients[name], !client.isSilent else { return }
        client.isSilent = true
        client.promotions.removeAll()
    }

    /// References that a client holds; nil when there is no such client (any more).
    public func leases(of name: StoreClient) -> Int? { clients[name]?.map.leases }

    /// Whether a client should send a batch: there are promotions for it, retired frames wait for it, or its frames are to be
    /// looked at. Asking for nothing suffices, as often as this is so.
    public func wantsToHear(_ name: StoreClient) -> Bool {
        guard let client = clients[name], !client.isSilent else { return false }
        if client.promotions.count > 0 || isHoldingBack(client) { return true }
        return !client.hearsPromotionsOnly && !isCalm(client)
    }

    // MARK: slices of work

    /// Whether ``sweep(limit:)`` has anything to do now.
    public var hasWork: Bool {
        current != nil || leaving.count > 0 || (retired.first.map { $0.generation < safeGeneration } ?? false)
    }

    /// Does a slice of what waits: at most `limit` pages of clients that left are forgotten, and as many frames freed.
    public func sweep(limit: Int) {
        discardRetired(limit: limit)
        var budget = limit
        while budget > 0 {
            guard let (client, start) = current ?? leaving.popFirst() else { break }
            var page = client.map.words.firstPossible(from: start)
            while page < client.map.pageCount, budget > 0 {
                forget(client, ClientPage(page))
                budget -= 1
                page += 1
            }
            current = page < client.map.pageCount ? (client, page) : nil
            if current == nil {
                map.part(client.map)
                clients[client.name] = nil
                statistics.clients = clients.count
            }
        }
        discardRetired(limit: limit)
    }

    // MARK: batches

    /// Carries out a client's batch. Whatever it says, only its own pages are touched.
    /// - Parameter staging: the bytes of a staging slot as they are now, or nil when there are not 4096 of them.
    /// - Returns: nil when the client is unknown, or the batch breaks the rules: names a page that the client does not
    ///   have, or is too large.
    public func exchange(
        _ name: StoreClient, _ batch: StoreBatch, staging: (UInt32) -> [UInt8]?
    ) -> StoreReply? {
        guard let client = clients[name], !client.isSilent,
            Self.isLegal(batch, pageCount: client.map.pageCount)
        else { return nil }
        generation += 1
        client.generation = generation
        newPatterns = 0
        var reply = StoreReply()
        for moved in batch.relocated { map.acknowledge(.init(client.map, moved.page), at: moved.location) }
        for page in batch.forgotten { forget(client, page) }
        reply.sightings = batch.sightings.map { sight(client, $0.page, $0.hash) }
        reply.uniform = batch.uniform.map { shareUniform(client, $0.page, $0.pattern) }
        reply.publications = batch.publications.map { publication in
            guard let bytes = staging(publication.slot), bytes.count == 4096 else { return .refused }
            return publish(client, publication.page, bytes)
        }
        reply.sharing = batch.questions.map { explain(client, $0) }
        if batch.questions.count == 1 { reply.companions = companions(of: batch.questions[0], client) }
        takePromotions(client, &reply)
        if batch.isEmpty {
            client.hearsPromotionsOnly = batch.isForPromotionsOnly
            if !batch.isForPromotionsOnly, reply.promotions.isEmpty, !isCalm(client) {
                lookAtPlaces(of: client, &reply)
            }
        }
        discardRetired(limit: Self.discardsPerBatch)
        return reply
    }

    private static func isLegal(_ batch: StoreBatch, pageCount: Int) -> Bool {
        batch.count <= batchLimit && batch.publications.count <= stagingSlots
            && batch.relocated.allSatisfy { $0.page < pageCount }
            && batch.forgotten.allSatisfy { $0 < pageCount }
            && batch.sightings.allSatisfy { $0.page < pageCount }
            && batch.uniform.allSatisfy { $0.page < pageCount }
            && batch.publications.allSatisfy { $0.page < pageCount }
            && batch.questions.allSatisfy { $0 < pageCount }
    }

    private func takePromotions(_ client: Client, _ reply: inout StoreReply) {
        while reply.promotions.count < Self.promotionLimit, let page = client.promotions.popFirst() {
            client.queued.remove(Int(page))
            // Forgotten since: the lease is gone as well, whatever the page holds now.
            guard client.pending.contains(Int(page)) else { continue }
            client.pending.remove(Int(page))
            let mapper = ReverseMap.Mapper(client.map, page)
            guard let frame = map.frame(of: mapper) else { continue }
            // It never mapped the place that the frame may have left.
            map.acknowledge(mapper)
            reply.promotions.append(StoreReply.Promotion(page: page, location: map.slot(of: frame)))
        }
        reply.hasMore = client.promotions.count > 0
    }

    // MARK: one page

    private func sight(_ client: Client, _ page: ClientPage, _ hash: ContentHash) -> StoreAnswer {
        forget(client, page)
        let index = map.table.find(hash)
        guard hasRoom(client, page) else { return .refused }
        guard index != 0 else { return record(client, page, hash) }
        if map.table[index].references > 0 { return lease(client, page, FrameNumber(index)) }
        if takeOver(index, client, page) { return .recorded }
        // Seen before: now it pays to keep it. The sighter learns of it when it is published.
        return .publish
    }

    private func record(_ client: Client, _ page: ClientPage, _ hash: ContentHash) -> StoreAnswer {
        guard map.sight(.init(client.map, page), hash) else { return .refused }
        statistics.sightings += 1
        return .recorded
    }

    private func sighter(of index: UInt32) -> (client: Client?, page: ClientPage) {
        let place = map.table[index].place
        return (clients[StoreClient(UInt32(place >> 32))], ClientPage(truncatingIfNeeded: place))
    }

    /// Makes a sighting this page's when its sighter is silent: nobody could tell that one of a frame.
    private func takeOver(_ index: UInt32, _ client: Client, _ page: ClientPage) -> Bool {
        let (sighter, sighted) = sighter(of: index)
        if let sighter, !sighter.isSilent { return false }
        map.takeOver(index, from: sighter.map { .init($0.map, sighted) }, by: .init(client.map, page))
        return true
    }

    private func publish(_ client: Client, _ page: ClientPage, _ bytes: [UInt8]) -> StoreAnswer {
        forget(client, page)
        guard statistics.retired < Self.retiredLimit, hasRoom(client, page) else { return .refused }
        let hash = hash(bytes)
        var chain = 0
        var sighting: UInt32 = 0
        var index = map.table.find(hash)
        while index != 0 {
            chain += 1
            let entry = map.table[index]
            if entry.references == 0 {
                sighting = index
            } else if backing.matches(bytes, at: entry.slot) {
                return lease(client, page, FrameNumber(index))
            }
            index = map.table.find(hash, after: index)
        }
        if sighting != 0 {
            return takeOver(sighting, client, page) ? .recorded : makeFrame(client, page, sighting, bytes)
        }
        // Nobody else has it (any more), and a frame with one mapper would save nothing.
        return chain < Self.chainLimit ? record(client, page, hash) : .refused
    }

    /// Turns a sighting into a frame.
    private func makeFrame(_ client: Client, _ page: ClientPage, _ index: UInt32, _ bytes: [UInt8])
        -> StoreAnswer
    {
        let (donor, sighted) = sighter(of: index)
        guard let donor, hasRoomForFrame(client), let location = takePlace(donor, sighted, client, page)
        else { return .refused }
        do throws(FrameStoreError) { try backing.write(bytes, at: location) } catch {
            // Part of it may have been written.
            backing.discard(location, count: 1)
            slots.release(location)
            return .refused
        }
        statistics.sightings -= 1
        statistics.frames += 1
        statistics.references += 1
        let frame = map.makeFrame(index, of: .init(donor.map, sighted), at: location)
        disturb(donor)
        donor.pending.insert(Int(sighted))
        if !donor.queued.contains(Int(sighted)) {
            donor.queued.insert(Int(sighted))
            donor.promotions.append(sighted)
            occurrences += 1
        }
        return lease(client, page, frame)
    }

    private func lease(_ client: Client, _ page: ClientPage, _ frame: FrameNumber) -> StoreAnswer {
        guard map.add(.init(client.map, page), to: frame) else { return .refused }
        statistics.references += 1
        disturb(client)
        return .frame(map.slot(of: frame))
    }

    func forget(_ client: Client, _ page: ClientPage) {
        let removal = map.remove(.init(client.map, page))
        switch removal {
        case .nothing: return
        case .sighting: return statistics.sightings -= 1
        case .uniform, .shared, .last: break
        }
        client.pending.remove(Int(page))
        statistics.references -= 1
        if case .uniform(let pattern) = removal { forgetUniform(pattern) }
        // Its frame has a single mapper now.
        if removal == .shared(left: 1) { unrest += 1 }
    }
}
