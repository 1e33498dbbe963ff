public import FrameStore
internal import GuestMemory
public import LinuxHost

/// What a look at a page finds.
public enum PageContent: Equatable, Sendable {
    case zero
    /// Every 64-bit word holds this.
    case uniform(UInt64)
    case other(ContentHash)
}

/// The engine's hands: all it does to guest memory. The real one is `LinuxGuestMapping`; tests have one of plain arrays.
/// Used by the scanner's thread alone. Pages are numbers in the guest's memory file.
///
/// Between ``protect(_:)`` (or a pause of all writers) and ``release(_:replaced:)`` a window is open: nothing in there may
/// allocate, log, call KVM or the store.
public protocol GuestMapping: StoreView {
    var pageCount: Int { get }
    /// Looks at a page through the mapping; it may change meanwhile.
    func inspect(_ page: Int) -> PageContent
    /// The hash of a page, whatever it holds.
    func hash(_ page: Int) -> ContentHash
    /// Copies a page as it is into a slot of the store's staging area.
    func stage(_ page: Int, slot: Int)
    /// Private pages that one call can copy out and back.
    var copyLimit: Int { get }

    /// Makes sure that a range can be protected.
    func prepareWindow(_ pages: Range<Int>) throws(LinuxError)
    /// Opens a window: from here on writers of these pages wait.
    func protect(_ pages: Range<Int>) throws(LinuxError)
    func isZero(_ page: Int) -> Bool
    /// Replaces the mapping of a range by a private one of frames.
    /// - Throws: as all that replace mappings: `unchanged` when the mapping is as it was before; else see `MappingFailure`.
    func mapFrames(_ pages: Range<Int>, _ location: FrameLocation) throws(MappingFailure)
    /// As `mapFrames`, for a range of which some pages do not hold the frames' content: those get private copies of what
    /// they hold, zeros too, over the mapping, so that one mapping covers all. Readers see no moment in between.
    /// - Returns: false when this host cannot do that; nothing was changed then.
    func mapFrames(_ pages: Range<Int>, _ location: FrameLocation, keeping: [Int]) throws(MappingFailure)
        -> Bool
    /// Replaces the mapping of a range by private anonymous memory.
    func mapZero(_ pages: Range<Int>) throws(MappingFailure)
    /// Closes a window: writers of these pages go on.
    /// - Parameter replaced: whether the mapping of the range was replaced in the window.
    func release(_ pages: Range<Int>, replaced: Bool)

    /// Replaces private mappings by the home file's with the same bytes. Nobody may read or write meanwhile: all vCPUs
    /// and device threads are paused.
    func mapHome(_ pages: Range<Int>) throws(MappingFailure)
    /// The first run of these pages for which the home file has memory; they are home. Nil when there is none.
    func firstMemoryAtHome(_ pages: Range<Int>) -> Range<Int>?
    /// Replaces the mapping of a range by one of frames or of zeros, while nobody reads or writes, as for `mapHome`.
    /// - Parameters:
    ///   - target: what the first page is backed by then; not home.
    ///   - keeping: for each page, whether it becomes a private copy of what it holds; of the others, those that are private
    ///     already are added: they were written since.
    /// - Returns: false when too many have to be kept; nothing was changed then.
    func rearrange(_ pages: Range<Int>, _ target: PageBacking, keeping: inout [Bool]) throws(MappingFailure)
        -> Bool
    /// Frees home pages that a mapping hides.
    func punchHome(_ pages: Range<Int>)
    /// Whether each page of a mapping that is not home's has a private copy (invariant 7).
    func arePrivate(_ pages: Range<Int>) -> [Bool]
    /// Those of a range's pages that are the first of one of the kernel's mappings, in order: where the backing is not continued,
    /// and where it is but the kernel has not joined two mappings.
    func mappingStarts(in pages: Range<Int>) -> [Int]
    /// How many mappings there really are; nil when that cannot be told now. Not in a window.
    func countMappings() -> MappingCount?
    /// Whether there is heap for what is about to begin. Not in a window.
    func hasMemory(for work: SharingWork) -> Bool
    /// Gives the memory of buffers back to the host; what they held is lost. Between passes only.
    func releaseBuffers()
}

extension GuestMapping {
    public func releaseBuffers() {}
    public func hasMemory(for work: SharingWork) -> Bool { true }
}

/// What a page's part of a guest's mapping is backed by, whoever has a private copy over it.
public enum PageBacking: Equatable, Sendable {
    case home
    case zero
    case frame(FrameLocation)
}

/// A mapping could not be replaced.
public enum MappingFailure: Error, Equatable, Sendable {
    /// The range is as it was.
    case unchanged(LinuxError)
    /// The range lost its mapping; home has taken its place, with the same bytes.
    case wentHome(Range<Int>, LinuxError)
    /// The range lost its content and could not be filled again: the guest must not go on.
    case destroyed(LinuxError)
}
