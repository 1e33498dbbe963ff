public import FrameStore
public import GuestMemory
public import LinuxHost

/// Shares one guest's memory: conducts its parts, each of which owns its state. What it does in a pass is told in
/// `SharingEngine+Pass.swift`. Made, run and asked by one thread, the scanner; see `SharingThread` for the rest.
public final class SharingEngine {
    /// What a pass did, for the pace of the next.
    public struct PassResult: Equatable, Sendable {
        /// Pages looked at, merged, accounted for.
        public var activity = 0
        /// The time given was over before the work.
        public var isUnfinished = false
        /// So many pages were looked at, or heard of, that others publish soon: see ``SharingEngine/pollPromotions()``.
        public var isEager = false
    }

    let conditions: PassConditions
    let journal: EngineJournal
    let pages: GuestPages
    let tracker: DirtyTracker
    let link: StoreLink
    let auditor: Auditor
    let inspector: Inspector
    let budget: ProcessBudget
    let merger: Merger
    let rehomer: Rehomer
    let arranger: Arranger
    let inFlight: InFlightCounts
    private let mapping: any GuestMapping
    let clock: () -> UInt64
    let monotonicClock: () -> UInt64
    /// Passes that have ended: what retries and arranging are timed by.
    var number = 0

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
        (self.mapping, self.clock, self.monotonicClock) = (mapping, clock, monotonicClock)
        self.inFlight = inFlight
        conditions = PassConditions(policy)
        journal = EngineJournal()
        pages = try GuestPages(count: mapping.pageCount, journal)
        tracker = try DirtyTracker(mapping, log, vmmWrites, pages, conditions, journal)
        auditor = try Auditor(mapping, pages, tracker, conditions)
        inspector = Inspector(mapping, pages, tracker, inFlight, conditions, journal)
        link = StoreLink(mapping, pages, tracker, conditions, journal, clock: monotonicClock)
        budget = ProcessBudget(mapping, pages, conditions, journal, clock: monotonicClock)
        let window = Window(mapping, writers, pages, budget, conditions, journal)
        merger = Merger(window, pages, tracker, budget, inFlight, conditions, journal)
        rehomer = Rehomer(window, pages, tracker, inFlight, conditions, journal)
        arranger = Arranger(window, pages, tracker, rehomer, budget, inFlight, conditions, journal)
    }

    // MARK: asked from outside

    public var policy: SharingPolicy { conditions.policy }
    public var statistics: SharingStatistics { journal.statistics }
    /// Why the guest must not go on, once that is so.
    public var fatal: MappingFailure? { conditions.fatal }
    /// Told of events after each pass, if set.
    public var trace: (([ShareEvent]) -> Void)? {
        get { journal.trace }
        set { journal.trace = newValue }
    }
    #if DEBUG
        /// What is to go wrong.
        public var injection: FaultInjection? {
            get { journal.injection }
            set { journal.injection = newValue }
        }
    #endif

    /// Why pages are shared or not: of each page, in order. Between passes.
    public func explain() -> [PageSharingReason] { explainer.all() }
    /// Why a page is shared or not; nil: the guest has no such page. Between passes.
    public func explain(page: Int) -> PageExplanation? {
        0..<pages.count ~= page ? explainer.page(page) : nil
    }
    private var explainer: Explainer { Explainer(pages, tracker, inFlight, link) }

    /// Takes a new policy. Turned on again after it was off, everything is looked at anew.
    public func setPolicy(_ new: SharingPolicy) {
        if new.isEnabled, !policy.isEnabled { tracker.requestAll() }
        conditions.policy = new
    }

    /// Connects a store. What an earlier one knew is void; pages that map its frames are looked at again and move over.
    public func connect(_ store: any FrameStore) { link.connect(store) }

    /// Nothing was merged for some passes, and perhaps nothing will be for long: buffers need no memory.
    func releaseBuffers() { mapping.releaseBuffers() }

    func refreshStatistics() {
        journal.count { statistics in
            statistics.pagesMapped = pages.count(of: .mapped)
            statistics.pagesZero = pages.count(of: .zero)
            statistics.mappings = budget.mappings
            statistics.pagesUnshared = pages.sightedCount
            statistics.metadataBytes =
                pages.touchedCount * GuestPages.bytesPerPage + pages.singleMapperCount
                + tracker.metadataBytes
        }
    }
}
