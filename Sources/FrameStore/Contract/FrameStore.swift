/// A page of the client's guest, by its number in the guest's memory file; below `FrameLocation.segmentSpan`.
public typealias ClientPage = UInt32

/// What a client tells its store, and asks of it. Everything travels in batches; the store takes the lists in the order
/// in which they stand here.
public struct StoreBatch: Equatable, Sendable {
    /// Pages that map their frames' new places now, as an earlier answer told: the old ones are not mapped there any more. Of a
    /// page that was not told so, or of another place, it means nothing.
    public var relocated: [Relocation] = []
    /// Pages about which the store shall forget what it knows: a sighting is retracted; a reference is given back, which
    /// the client may do only after it replaced the mapping, or proved the page private.
    public var forgotten: [ClientPage] = []
    /// Pages that stayed clean, with the hash of their content.
    public var sightings: [Sighting] = []
    /// Pages all of whose 64-bit words are the same, and not zero.
    public var uniform: [UniformPage] = []
    /// Pages whose bytes lie in the staging area, asked for by an earlier answer `.publish`.
    public var publications: [Publication] = []
    /// Pages of which the client wants to know what the store knows.
    public var questions: [ClientPage] = []
    /// This process maps no frame that it learned of over an earlier connection: what is still counted for those goes.
    public var hasMovedOver = false
    /// The client would take no page home now, nor map one from elsewhere, so the store shall not look for any that should be,
    /// nor ask the client to speak because of such, until an empty batch that is not for promotions only.
    /// Without meaning in a batch that is not empty.
    public var isForPromotionsOnly = false
    /// Thousandths of the time that the vCPUs of the client's guest wait for a CPU of the host.
    public var waiting: UInt16 = 0

    public struct Sighting: Equatable, Sendable {
        public var page: ClientPage
        public var hash: ContentHash
        public init(page: ClientPage, hash: ContentHash) {
            self.page = page
            self.hash = hash
        }
    }
    public struct UniformPage: Equatable, Sendable {
        public var page: ClientPage
        public var pattern: UInt64
        public init(page: ClientPage, pattern: UInt64) {
            self.page = page
            self.pattern = pattern
        }
    }
    public struct Publication: Equatable, Sendable {
        public var page: ClientPage
        /// Page number in the staging area.
        public var slot: UInt32
        public init(page: ClientPage, slot: UInt32) {
            self.page = page
            self.slot = slot
        }
    }

    public init() {}
    /// An empty batch that only hears what others published.
    package static var forPromotionsOnly: StoreBatch {
        var batch = StoreBatch()
        batch.isForPromotionsOnly = true
        return batch
    }
    /// Asks for nothing.
    public var isEmpty: Bool {
        relocated.isEmpty && forgotten.isEmpty && sightings.isEmpty && uniform.isEmpty
            && publications.isEmpty && questions.isEmpty
    }
    /// Elements, over all lists.
    public var count: Int {
        relocated.count + forgotten.count + sightings.count + uniform.count + publications.count
            + questions.count
    }
}

/// A page, and the place that its frame was given while it maps another.
public struct Relocation: Equatable, Sendable {
    public var page: ClientPage
    public var location: FrameLocation
    public init(page: ClientPage, location: FrameLocation) {
        self.page = page
        self.location = location
    }
}

/// What the store says of one page.
public enum StoreAnswer: Equatable, Sendable {
    /// Known to be here now; whoever sees the same will be asked to publish it. Also the answer to a publication when the
    /// other page is gone meanwhile.
    case recorded
    /// A frame may hold this content, and a reference to it is counted for this page from now on (a lease): compare,
    /// map it, or have the page forgotten.
    case frame(FrameLocation)
    /// Somebody else sighted this content: put the bytes into the staging area and publish them.
    case publish
    /// No: a limit was reached, or the content is not wanted any more.
    case refused
}

/// The store's answer to a batch: a list for each list, in its order, and promotions.
public struct StoreReply: Equatable, Sendable {
    public var sightings: [StoreAnswer] = []
    public var uniform: [StoreAnswer] = []
    public var publications: [StoreAnswer] = []
    /// Pages that this client sighted and somebody else published since: with a lease, as in `StoreAnswer.frame`. Each
    /// lease is announced once, and none that the client had forgotten before.
    public var promotions: [Promotion] = []
    /// Whether more promotions wait.
    public var hasMore = false
    /// Pages of this client whose frames nobody else maps, as far as a short look at some of its pages showed: a frame for
    /// one saves nothing. Only in answers to batches that ask for nothing, and are not for promotions only.
    public var singleMappers: [ClientPage] = []
    /// Pages of this client whose frames have been given other places, with equal bytes: to be mapped from there, and said to be
    /// (``StoreBatch/relocated``). Until then the old place stays as it is. Found by the same look, again and again.
    public var moved: [Relocation] = []
    /// What is known of the pages that were asked about, after all else was carried out; and, if one was, other pages that map
    /// its frame, as many as are soon found.
    public var sharing: [PageSharing] = []
    public var companions: [FrameMapper] = []
    /// How scarce CPU time is for all clients of the store's owner.
    public var market = StoreMarket()
    /// CPU time that the batch took the store's owner, microseconds.
    public var microseconds: UInt32 = 0

    public struct Promotion: Equatable, Sendable {
        public var page: ClientPage
        public var location: FrameLocation
        public init(page: ClientPage, location: FrameLocation) {
            self.page = page
            self.location = location
        }
    }
    public init() {}
}

/// Why a store does not answer. Mappings of its frames stay good: they hold the memory.
public enum FrameStoreError: Error, Equatable, Sendable, CustomStringConvertible {
    /// The broker is gone, or its answer is overdue. What it knew of this client is void.
    case lost(String)
    public var description: String {
        switch self {
        case .lost(let reason): "the frame store is lost: \(reason)"
        }
    }
}

/// A client's end of a store. In the VMM it is a socket to the broker; in tests and benchmarks the same rules hold in the
/// process. One thread uses it, the scanner's. Each call may take long, and may find the store lost.
///
/// A client that has nothing to say sends an empty batch when the store gives it a notice: who does not for long is taken for
/// lost, if others wait for it. Since a notice may find no room, it sends one every ``heartbeatSeconds`` in any case.
public protocol FrameStore: AnyObject {
    /// Largest number of elements that one batch may carry, over all its lists.
    var batchLimit: Int { get }
    /// Pages of the staging area.
    var stagingSlots: Int { get }
    /// Carries out a batch.
    func exchange(_ batch: StoreBatch) throws(FrameStoreError) -> StoreReply
    /// Whether the store has asked, since the last batch that asked for nothing, to hear from this client: it has promotions for
    /// it, or frames wait for it to speak. Also when the store is lost, which the next exchange tells. Never waits.
    func hasNotice() -> Bool
}

extension FrameStore {
    /// Longest time between two batches of a client; seconds.
    public static var heartbeatSeconds: Int { 30 }
}

/// Where the frames of a store are kept. The store alone writes it.
public protocol FrameBacking: AnyObject {
    /// Writes a frame whose slot was never used, or was discarded since.
    func write(_ bytes: [UInt8], at location: FrameLocation) throws(FrameStoreError)
    /// Writes a frame as above, with the bytes of another one. When it fails, part of it may have been written.
    func copy(from old: FrameLocation, to new: FrameLocation) throws(FrameStoreError)
    /// Whether the frame holds just these bytes.
    func matches(_ bytes: [UInt8], at location: FrameLocation) -> Bool
    /// Frees the memory of frames that nobody maps; some of the places may never have been written.
    func discard(_ location: FrameLocation, count: Int)
}
