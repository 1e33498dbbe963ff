// The algorithm, once; every other text refers to this one.
//
// A pass:
//  1. Harvest: which pages were written (KVM's dirty log and the VMM's own bitmap). Clear those that are to be watched:
//     a page that was written while it was watched is left alone for twice as long as the last time, and so are its
//     neighbours where many were (`WatchPlan`).
//  2. Account: merged pages that were written have a private copy now, which the page map proves. Their references go
//     back to the store.
//  3. Look: pages that were watched and stayed clean are inspected: all zeros, all words equal, or a hash.
//  4. Ask the store, in batches: a frame (with a reference counted), publish, or recorded for others to find.
//  5. Merge, in windows: no writer can change the pages; compare all bytes; replace the mapping; let writers go on.
//     Then punch the home pages that nobody can see any more.
//  6. News, if the store says that there is any: pages that this guest sighted first and somebody else published.
//  7. Arrange: when the guest rests, stretches that were merged bit by bit become few mappings (`Arrangement`).
//
// Order matters in three places. Harvest, clear, *then* look: a write after the clear is reported again. The reference is
// counted *before* the mapping is made, and given back *after* it is gone. Home is punched *after* the mapping that hides
// it is recorded.

public import FrameStore
public import GuestMemory
public import LinuxHost

/// Shares one guest's memory. Made, run and asked by one thread, the scanner; see `SharingThread` for the rest.
public final class SharingEngine {
    /// What a pass did, for the pace of the next.
    public struct PassResult: Equatable, Sendable {
        /// Pages looked at, merged, accounted for.
        public var activity = 0
        /// The time given was over before the work.
        public var isUnfinished = false
        /// So many pages were looked at, or heard of, that others have news soon: see ``SharingEngine/hearNews()``.
        public var isEager = false
    }

    public private(set) var policy: SharingPolicy
    public internal(set) var statistics = SharingStatistics()
    /// What was done to the guest since this was last reset; and what a pass may cost it, by which prices.
    var disturbances = Disturbances()
    var lossLimit = Double.infinity
    var lossScale = LossScale(.assumed, nil)
    /// Thousandths of the time that the guest's vCPUs wait for a CPU, for the store.
    var waiting: UInt16 = 0
    /// What the store said of others last, and CPU time that its answers took it, nanoseconds.
    private(set) var market = StoreMarket()
    private(set) var storeNanoseconds: UInt64 = 0
    /// Told of events after each pass, if set.
    public var trace: (([ShareEvent]) -> Void)?
    private var events: [ShareEvent] = []
    #if DEBUG
        /// What is to go wrong.
        public var injection: FaultInjection?
    #endif
    /// Why the guest must not go on, once that is so.
    public internal(set) var fatal: MappingFailure?

    let mapping: any GuestMapping
    let log: any DirtyPageLog
    let vmmWrites: DirtyBitmap
    let inFlight: InFlightCounts
    let writers: any WriterControl
    var store: (any FrameStore)?
    let records: PageRecords
    /// Pages that were cleared in the log and not seen written since: to be looked at when still clean at a harvest.
    let watched: LazyArray<UInt64>
    let forgotten: PageSet
    /// Promotions that came between two passes.
    var news: [StoreReply.Promotion] = []
    /// The last answer did not hold all the news; and when the store last heard from us.
    private var hasMoreNews = false
    /// It was told that only news is heard: it asks for nothing else until it is told otherwise.
    private var hearsOnlyNews = false
    private var lastSpoke: UInt64 = 0
    /// Mappings that the kernel has beyond those that the records count: neighbours that it cannot join.
    var surplus = 0
    var countedAt = 0
    /// Mappings that guest memory may have beside what else the process has; and when they are counted again at the latest.
    var mappingsAllowed = Int.max
    var nextCount: UInt64 = 0
    var lastHarvest: UInt64 = 0
    /// The log begins with the first pass: a guest that is left alone pays nothing for it.
    var isLogging = false
    var plan: WatchPlan
    /// Since when the guest has been left alone; and whether that was long enough for now.
    var busySince: UInt64?
    var wasPatient = false
    var dirty: [UInt64]
    var toClear: [UInt64]
    /// Written, but not to be watched yet; and reported as written, but not proved to be private yet.
    let deferred: LazyArray<UInt64>
    private let postponed: LazyArray<UInt64>
    private static let passesToRetry = 64
    /// Pages that are looked at before the store is asked about them. With more, several guests that see the same contents
    /// at a time all publish them.
    private static let chunkLength = 256
    /// Half of what a store allows between two batches, and how often to look for a notice between passes; nanoseconds.
    static let silenceLimit: UInt64 = 15_000_000_000
    static let noticeInterval: UInt64 = 5_000_000_000
    let rechecks: PageSet
    var orphanPasses = 0
    var hasOrphans = false
    /// An earlier connection's references may still be counted.
    var countsEarlier = false
    var auditCursor = 0
    var schedule = ArrangementSchedule()
    private var lookCursor = 0
    private var mustLookAtAll = false
    let clock: () -> UInt64
    let monotonicClock: () -> UInt64

    /// - Parameters:
    ///   - clock: CPU time of the calling thread in nanoseconds.
    ///   - monotonicClock: what quiet and busy times are measured by, nanoseconds.
    /// - Throws: when there is no memory for the records.
    public init(
        mapping: any GuestMapping, log: any DirtyPageLog, vmmWrites: DirtyBitmap, inFlight: InFlightCounts,
        writers: any WriterControl, policy: SharingPolicy = SharingPolicy(),
        clock: @escaping () -> UInt64 = threadCPUNanoseconds,
        monotonicClock: @escaping () -> UInt64 = monotonicNanoseconds
    ) throws(LinuxError) {
        self.mapping = mapping
        self.log = log
        self.vmmWrites = vmmWrites
        self.inFlight = inFlight
        self.writers = writers
        self.policy = policy
        self.clock = clock
        self.monotonicClock = monotonicClock
        records = try PageRecords(count: mapping.pageCount)
        let words = (mapping.pageCount + 63) / 64
        forgotten = try PageSet(pageCount: mapping.pageCount)
        rechecks = try PageSet(pageCount: mapping.pageCount)
        watched = try LazyArray(count: words)
        deferred = try LazyArray(count: words)
        postponed = try LazyArray(count: words)
        plan = WatchPlan(blocks: words)
        dirty = [UInt64](repeating: 0, count: words)
        toClear = dirty
        recountMappings()
    }

    /// Takes a new policy. Turned on again after it was off, everything is looked at anew.
    public func setPolicy(_ new: SharingPolicy) {
        if new.isEnabled, !policy.isEnabled { mustLookAtAll = true }
        policy = new
    }

    /// Everything is looked at anew: right after a harvest, since what that reports is watched when it is cleared, and has not
    /// been written in spite of being watched.
    private func watchAll() {
        mustLookAtAll = false
        findMemory(0..<records.count)
        for page in 0..<records.count {
            switch records.kind(page) {
            case .untouched, .zero: break
            case .mapped: watch(page)
            case .home, .unshared: if dirty[page >> 6] & (1 << UInt64(page & 63)) == 0 { watch(page) }
            }
        }
    }

    // MARK: store

    /// Connects a store. What an earlier one knew is void; pages that map its frames are looked at again and move over.
    public func connect(_ store: any FrameStore) {
        if self.store != nil { loseStore() }
        self.store = store
        market = StoreMarket()
        hearsOnlyNews = false
        statistics.hasStore = true
        mustLookAtAll = true
    }

    /// The store is lost: mappings stay, references are nobody's.
    func loseStore() {
        store = nil
        market = StoreMarket()
        statistics.hasStore = false
        forgotten.removeAll()
        countsEarlier = true
        news = []
        for page in 0..<records.count {
            records.setKnown(page, false)
            records.setLonelyRounds(page, 0)
            if case .frame = records.backing(page) {
                records.setOrphan(page, true)
                hasOrphans = true
            }
        }
    }

    /// Sends a batch; a store that does not answer is lost.
    func ask(_ batch: StoreBatch) -> StoreReply? {
        guard let store else { return nil }
        lastSpoke = monotonicClock()
        do throws(FrameStoreError) {
            var batch = batch
            batch.waiting = waiting
            let reply = try store.exchange(batch)
            hasMoreNews = reply.hasMore
            market = reply.market
            storeNanoseconds += UInt64(reply.microseconds) * 1000
            if batch.isEmpty { hearsOnlyNews = batch.isForNewsOnly }
            return reply
        } catch {
            loseStore()
            return nil
        }
    }

    /// An earlier connection's references have to be given back, and there is no store to be told.
    var mustReconnect: Bool { countsEarlier && store == nil }

    /// Whether pages would be taken home now that are better off there.
    var mayMove: Bool { policy.isEnabled && !policy.holdsMerges && busySince == nil }

    /// Whether a pass asks the store for news.
    func isNewsDue(_ now: UInt64) -> Bool { hearsOnlyNews && mayMove && store != nil || mustSpeak(now) }

    /// Whether to speak to the store now: it asks for it, or would hear nothing from us until the next pass for too long.
    func mustSpeak(_ now: UInt64) -> Bool {
        guard let store else { return false }
        if hasMoreNews || now + policy.longestInterval >= lastSpoke + Self.silenceLimit { return true }
        return store.hasNotice()
    }

    // MARK: a pass

    /// One pass, for at most `budget` nanoseconds of CPU time.
    public func pass(budget: UInt64 = 50_000_000) throws(LinuxError) -> PassResult {
        guard hasMemory(for: .pass) else { return putPassOff() }
        let started = clock()
        var result = PassResult()
        takeOldNews()
        let now = monotonicClock()
        if now - lastHarvest >= policy.quietTime {
            if !isLogging {
                guard try beginLog() else { return putPassOff() }
            } else if now - lastHarvest > 2 * policy.longestInterval {
                try takeStock()
            }
            try harvest(now)
            result.activity += account()
            if mustLookAtAll { watchAll() }
            result.activity += audit()
            watchPostponed()
        }
        sendForgotten()
        // What is to be looked at stays marked while merges are held.
        let before = result.activity
        if busySince == nil, !policy.holdsMerges {
            result.isUnfinished = look(&result.activity, until: started + budget)
        }
        if isNewsDue(now) { result.activity += takeNews() }
        result.isEager = result.activity - before >= policy.eagerFrom
        if result.activity > policy.arrangementCalm { stir() }
        if !policy.holdsMerges {
            settleOrphans()
            if busySince == nil, !result.isUnfinished, arrange(result.activity) {
                // The rest soon: until then every pass has the whole plan to make.
                result.activity = max(result.activity, SharingPace.quick)
            }
        }
        sendForgotten()
        countMappings()
        flushTrace()
        statistics.fullScans += 1
        passed()
        updateStatistics(cpu: clock() - started)
        return result
    }

    /// What was written in a long time in which nobody looked says nothing of how busy the guest is now: a first harvest
    /// tells it from what is fresh.
    private func takeStock() throws(LinuxError) {
        for index in dirty.indices { dirty[index] = 0 }
        try log.harvestDirtyPages(into: &dirty)
        vmmWrites.harvest(into: &dirty)
        var faults = 0
        for index in dirty.indices where dirty[index] != 0 {
            faults += (dirty[index] & ~deferred[index] & watched[index]).nonzeroBitCount
            deferred[index] |= dirty[index]
        }
        plan.pay(faults)
    }

    /// Nothing was merged for some passes, and perhaps nothing will be for long: buffers need no memory.
    func rest() { mapping.releaseBuffers() }

    // MARK: looking

    /// Steps 3 to 5, in chunks, from where the last pass stopped.
    /// - Returns: whether pages are left.
    private func look(_ activity: inout Int, until deadline: UInt64) -> Bool {
        var chunk: [Int] = []
        chunk.reserveCapacity(Self.chunkLength + 64)
        let words = watched.count
        var visited = 0
        while visited < words {
            let index = (lookCursor + visited) % words
            visited += 1
            var bits = plan.isOnTrial(index) ? 0 : watched[index]
            if bits != 0 { bits &= ~dirty[index] }
            while bits != 0 {
                let bit = bits & (0 &- bits)
                bits ^= bit
                chunk.append(index * 64 + bit.trailingZeroBitCount)
            }
            guard chunk.count >= Self.chunkLength || visited == words, !chunk.isEmpty else { continue }
            activity += chunk.count
            share(chunk)
            chunk.removeAll(keepingCapacity: true)
            if fatal != nil { return false }
            if clock() >= deadline || isTooMuch {
                lookCursor = (index + 1) % words
                return visited < words
            }
        }
        return false
    }

    func updateStatistics(cpu: UInt64) {
        statistics.cpuNanoseconds += cpu
        refreshStatistics()
    }

    func refreshStatistics() {
        statistics.pagesMapped = records.count(of: .mapped)
        statistics.pagesZero = records.count(of: .zero)
        statistics.mappings = records.seams + surplus + 1
        statistics.pagesUnshared = records.sightedCount
        statistics.metadataBytes =
            (records.count - records.count(of: .untouched)) * PageRecords.bytesPerPage
            + watched.count * (40 + WatchPlan.bytesPerBlock)
    }

    /// Much changed just now.
    func stir() { schedule.stir(statistics.fullScans) }

    // MARK: small steps

    /// The guest has lost to this pass what it may.
    var isTooMuch: Bool { lossScale.cost(disturbances) > lossLimit }

    /// All writers were stopped for so long, nanoseconds.
    func noteStop(_ length: UInt64) {
        disturbances.calls += 1
        disturbances.stopped += length
        count { $0.windows.record(length) }
    }

    func isWatched(_ page: Int) -> Bool { watched[page >> 6] & (1 << UInt64(page & 63)) != 0 }
    func watch(_ page: Int) { watched[page >> 6] |= 1 << UInt64(page & 63) }
    func unwatch(_ page: Int) { watched[page >> 6] &= ~(1 << UInt64(page & 63)) }

    /// A page that could not be mapped now, for no reason of its own: it is looked at again some passes later.
    func postpone(_ page: Int) {
        forget(page)
        postponed[page >> 6] |= 1 << UInt64(page & 63)
    }

    private func watchPostponed() {
        guard statistics.fullScans % Self.passesToRetry == 0 else { return }
        for index in 0..<postponed.count where postponed[index] != 0 {
            watched[index] |= postponed[index]
            postponed[index] = 0
        }
    }

    /// Has the store forget the page, soon.
    func forget(_ page: Int) {
        guard records.isKnown(page) else { return }
        note(.released, page)
        records.setKnown(page, false)
        forgotten.insert(page)
    }

    /// Gives a lease back that is not used now; the page is looked at again when merges are no longer held.
    func giveBack(_ page: Int) {
        forget(page)
        watch(page)
    }

    func count(_ body: (inout SharingStatistics) -> Void) { body(&statistics) }

    /// Never inside a window.
    func note(_ kind: ShareEvent.Kind, _ page: Int, _ location: FrameLocation? = nil) {
        if trace == nil { return }
        events.append(ShareEvent(kind: kind, page: page, location: location))
        if events.count >= 4096 { flushTrace() }
    }

    func flushTrace() {
        if events.isEmpty { return }
        trace?(events)
        events.removeAll(keepingCapacity: true)
    }
}
