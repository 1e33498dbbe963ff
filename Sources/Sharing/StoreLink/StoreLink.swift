internal import FrameStore
internal import GuestMemory
internal import LinuxHost

/// A frame for a page, whose reference the store counts already: to be compared and mapped, or forgotten.
struct FrameHit {
    var page: Int
    var location: FrameLocation
}

/// The engine's end of its store: who it is, what it has to be told and when, what it said. Mappings are made by others: hits go
/// to whoever merges.
final class StoreLink {
    /// Promotions that are kept between passes.
    private static let promotionLimit = 1 << 14
    /// Half of what a store allows between two batches; nanoseconds.
    static let silenceLimit: UInt64 = 15_000_000_000

    let mapping: any GuestMapping
    let pages: GuestPages
    let tracker: DirtyTracker
    let journal: EngineJournal
    private let conditions: PassConditions
    private let clock: () -> UInt64

    private(set) var store: (any FrameStore)?
    /// Thousandths of the time that the guest's vCPUs wait for a CPU; the store is told with every batch.
    var waiting: UInt16 = 0
    /// What it was told last of that.
    private(set) var saidWaiting: UInt16 = 0
    /// What the store said of others last, and CPU time that its answers took it, nanoseconds.
    private(set) var market = StoreMarket()
    private(set) var storeNanoseconds: UInt64 = 0
    /// Promotions that came between two passes.
    private var kept: [StoreReply.Promotion] = []
    /// The last answer did not hold all promotions.
    private var hasMore = false
    /// The last empty batch asked for promotions only: the store gives no notice because of anything else.
    private var asksForPromotionsOnly = false
    private var lastExchange: UInt64 = 0
    /// An earlier connection's references may still be counted.
    private var countsEarlier = false

    /// - Parameter clock: monotonic nanoseconds.
    init(
        _ mapping: any GuestMapping, _ pages: GuestPages, _ tracker: DirtyTracker,
        _ conditions: PassConditions, _ journal: EngineJournal, clock: @escaping () -> UInt64
    ) {
        (self.mapping, self.pages, self.tracker) = (mapping, pages, tracker)
        (self.conditions, self.journal, self.clock) = (conditions, journal, clock)
    }

    // MARK: the connection

    var isConnected: Bool { store != nil }

    /// Connects a store. What an earlier one knew is void; pages that map its frames are looked at again and move over.
    func connect(_ store: any FrameStore) {
        if self.store != nil { lose() }
        self.store = store
        market = StoreMarket()
        asksForPromotionsOnly = false
        journal.count { $0.hasStore = true }
        tracker.requestAll()
    }

    /// The store is lost: mappings stay, references are nobody's.
    private func lose() {
        store = nil
        market = StoreMarket()
        journal.count { $0.hasStore = false }
        countsEarlier = true
        kept = []
        pages.loseStore()
    }

    /// An earlier connection's references have to be given back, and there is no store to be told.
    var mustReconnect: Bool { countsEarlier && store == nil }

    /// Tells the store that nothing of an earlier one is mapped any more. A store that does not hear it was not told.
    func tellMovedOver() {
        guard countsEarlier, store != nil else { return }
        countsEarlier = false
        var batch = StoreBatch()
        batch.hasMovedOver = true
        guard let reply = ask(batch) else { return }
        keep(reply.promotions)
    }

    // MARK: exchanges

    /// Sends a batch; a store that does not answer is lost.
    func ask(_ batch: StoreBatch) -> StoreReply? {
        guard let store else { return nil }
        lastExchange = clock()
        do throws(FrameStoreError) {
            var batch = batch
            batch.waiting = waiting
            saidWaiting = waiting
            let reply = try store.exchange(batch)
            hasMore = reply.hasMore
            market = reply.market
            storeNanoseconds += UInt64(reply.microseconds) * 1000
            if batch.isEmpty { asksForPromotionsOnly = batch.isForPromotionsOnly }
            return reply
        } catch {
            lose()
            return nil
        }
    }

    /// Whether a pass asks the store for promotions.
    /// - Parameter mayMove: pages would be taken home now that are better off there.
    func isDue(_ now: UInt64, mayMove: Bool) -> Bool {
        asksForPromotionsOnly && mayMove && store != nil || isOverdue(now)
    }

    /// Whether the store asks for a word, or would hear nothing from us until the next pass for too long.
    private func isOverdue(_ now: UInt64) -> Bool {
        guard let store else { return false }
        let next = now + conditions.policy.longestInterval
        return hasMore || next >= lastExchange + Self.silenceLimit || store.hasNotice()
    }

    var isKeepaliveDue: Bool { isOverdue(clock()) }

    /// A word with the store, so that it does not take this client for lost, nor waits for it to free frames. Promotions are
    /// kept for the next pass.
    func sendKeepalive() {
        guard let reply = ask(.forPromotionsOnly) else { return }
        keep(reply.promotions)
    }

    /// Keeps promotions for the next pass; references beyond what is kept are given back.
    func keep(_ promotions: [StoreReply.Promotion]) {
        let room = max(0, Self.promotionLimit - kept.count)
        kept += promotions.prefix(room)
        for promotion in promotions.dropFirst(room) where Int(promotion.page) < pages.count {
            pages.forget(Int(promotion.page))
            tracker.watch(Int(promotion.page))
        }
    }

    /// Hits of what was kept, which is kept no more. Before anything else, while the references are certain.
    func takeKept() -> [FrameHit] {
        defer { kept.removeAll() }
        return hits(of: kept)
    }

    func hits(of promotions: [StoreReply.Promotion]) -> [FrameHit] {
        // If a page was forgotten meanwhile, that message is on its way and gives the reference back.
        promotions.filter { Int($0.page) < pages.count && pages.isKnown(Int($0.page)) }
            .map { FrameHit(page: Int($0.page), location: $0.location) }
    }
}
