import FrameStore
internal import GuestMemory
import LinuxHost
import TestSupport

import Sharing

/// Hears of what a model finds wrong.
protocol ViolationLog: AnyObject {
    func violated(_ what: String)
    /// Nobody may map a place of a store that is being changed.
    func checkUnmapped(_ location: FrameLocation, of backing: ModelBacking, _ what: String)
}

/// The kernel as a guest's memory knows it, on plain arrays: a home file with holes, private mappings of frames and of
/// zeros with copy on write, write protection, pauses, KVM's dirty log. It checks each step of the engine, and all of
/// guest memory against an oracle.
final class KernelModel: GuestMapping, DirtyPageLog, WriterControl, @unchecked Sendable {
    enum Backing: Equatable {
        case home
        case zero
        case frame(ObjectIdentifier, FrameLocation)
    }
    struct Options {
        /// Reads of home pages are reported as written.
        var readsAreReported = false
        /// Writes are reported only after the next harvest.
        var reportsLag = false
        /// This host cannot keep pages inside a stretch.
        var cannotKeep = false
        /// All contents have one hash.
        var constantHash = environmentNumber("MINGLE_CONSTANT_HASH") == 1
        /// Every second write that makes a copy of a merged page is never reported.
        var reportsGetLost = false
        /// A punch does nothing.
        var punchesFail = false
    }
    /// What the next replacement of a mapping does instead of succeeding.
    enum MapFault { case none, unchanged, wentHome, destroyed }
    /// Steps that are left out, to see whether anybody notices.
    enum Sabotage: String, CaseIterable {
        case none, noProtection, noCompare, clearAfterLook, keptFromOldRecords, keepInTwoSteps, noWake,
            writtenPagesAreDropped
    }

    let name: String
    let pageCount: Int
    let copyLimit = 8
    let options: Options
    unowned let world: any ViolationLog
    /// What the engine makes of an entry of `pagemap`.
    let isPrivate: (UInt64) -> Bool
    var backingStore: ModelBacking?
    var mapFault = MapFault.none
    /// Calls that replace a mapping so far; the one that fails, and how.
    var replacements = 0
    var failingReplacement = 0
    var failsWith = MapFault.unchanged
    /// Times that the engine asked for heap so far, and those at which there is none.
    var requests = 0
    var refusedRequests = 0..<0
    var sabotage = Sabotage.none
    /// Called before each primitive, with its name.
    var hook: (String) -> Void = { _ in }

    // What the kernel knows.
    var home: [HostPage?]
    var copies: [HostPage?]
    var backing: [Backing]
    var storeOf: [ObjectIdentifier: ModelBacking] = [:]
    var isTouched: [Bool]
    var isRegistered: [Bool]
    var isProtected: [Bool]
    /// Where two mappings meet that the kernel cannot join.
    var cuts: Set<Int> = []
    var pauses = 0
    /// Mappings of the process besides those of guest memory, and the most that it may have.
    var others = 0
    var mappingLimit = 65530
    /// Pages whose writers wait for a wake, though protection is gone.
    var sleepers: Set<Int> = []
    var blocked: [(page: Int, act: () -> Void)] = []
    var log: [Bool]
    private var isLogging = false
    /// Written since the last harvest, and before it, but not reported yet.
    var lagging: [Bool]
    var late: [Bool]
    var staging = [Content](repeating: .zero, count: 64)
    /// Frames as they were when they came into view.
    var viewed: [FrameLocation: Content] = [:]
    var isDestroyed = false
    /// First writes to pages since they were cleared in the log: each costs a real guest a fault.
    private(set) var writeFaults = 0
    /// Writes to merged pages so far; and the next one is not reported.
    private var copying = 0
    var losesNextReport = false
    /// Last contents that a look or a mapping found, for sabotage.
    private var oldContents: [Content]
    private var looked: [Int] = []

    /// What guest and devices wrote.
    var oracle: [Content]
    let vmmWrites: DirtyBitmap
    let inFlight: InFlightCounts

    init(
        _ name: String, pageCount: Int, options: Options, world: any ViolationLog,
        isPrivate: @escaping (UInt64) -> Bool
    ) throws {
        self.name = name
        self.pageCount = pageCount
        self.options = options
        self.world = world
        self.isPrivate = isPrivate
        home = [HostPage?](repeating: nil, count: pageCount)
        copies = home
        backing = [Backing](repeating: .home, count: pageCount)
        isTouched = [Bool](repeating: false, count: pageCount)
        isRegistered = [Bool](repeating: true, count: pageCount)
        isProtected = isTouched
        log = [Bool](repeating: true, count: pageCount)
        lagging = isTouched
        late = isTouched
        oracle = [Content](repeating: .zero, count: pageCount)
        oldContents = oracle
        vmmWrites = try DirtyBitmap(pageCount: pageCount)
        inFlight = try InFlightCounts(pageCount: pageCount)
    }

    // MARK: what can be seen

    /// What a reader sees, without the effects of a read.
    func visible(_ page: Int) -> Content {
        if let copy = copies[page] { return copy.content }
        switch backing[page] {
        case .home: return home[page]?.content ?? .zero
        case .zero: return .zero
        case .frame(let store, let location): return storeOf[store]?.frames[location] ?? .zero
        }
    }

    func check(_ when: String) {
        if isDestroyed { return }
        for page in 0..<pageCount where visible(page) != oracle[page] {
            world.violated("\(name): page \(page) shows \(visible(page)) instead of \(oracle[page]) \(when)")
        }
    }

    /// Reads as a CPU does.
    @discardableResult
    func touch(_ page: Int) -> Content {
        if copies[page] == nil {
            switch backing[page] {
            case .home: if home[page] == nil { home[page] = HostPage(.zero) }
            case .zero: isTouched[page] = true
            case .frame(let store, let location):
                isTouched[page] = true
                if storeOf[store]?.frames[location] == nil {
                    world.violated("\(name): page \(page) reads a hole of the store at \(location)")
                }
            }
        }
        return visible(page)
    }

    /// The page a writer gets, copied if need be.
    func writable(_ page: Int) -> HostPage {
        if let copy = copies[page] { return copy }
        if backing[page] == .home {
            let current = home[page] ?? HostPage(.zero)
            home[page] = current
            return current
        }
        let copy = HostPage(visible(page))
        copies[page] = copy
        return copy
    }

    // MARK: the guest and its devices

    var mayWrite: Bool { pauses == 0 }

    /// Runs an action that needs write access to a page: now, or when whoever keeps it off lets it go.
    func whenWritable(_ page: Int, _ act: @escaping () -> Void) {
        if isDestroyed { return }
        // What waits for more than a page has none of its own.
        let isKeptOff = page >= 0 && (isProtected[page] || sleepers.contains(page))
        if pauses > 0 || isKeptOff {
            if isKeptOff { sleepers.insert(page) }
            blocked.append((page, act))
        } else {
            act()
        }
    }

    func guestWrites(_ page: Int, half: Int, _ value: UInt64) {
        whenWritable(page) { [self] in
            if !log[page] { writeFaults += 1 }
            let isLost = losesReport(page)
            writable(page).content.write(half, value)
            oracle[page].write(half, value)
            if isLost { return }
            if options.reportsLag { lagging[page] = true } else { log[page] = true }
        }
    }

    private func losesReport(_ page: Int) -> Bool {
        guard copies[page] == nil, backing[page] != .home else { return false }
        copying += 1
        defer { losesNextReport = false }
        return losesNextReport || options.reportsGetLost && copying % 2 == 0
    }

    func guestReads(_ page: Int) {
        if isDestroyed || pauses > 0 { return }
        let seen = touch(page)
        if seen != oracle[page] {
            world.violated("\(name): the guest read \(seen) instead of \(oracle[page]) at \(page)")
        }
        if options.readsAreReported, backing[page] == .home { log[page] = true }
    }

    private func runBlocked() {
        let waiting = blocked
        blocked = []
        for item in waiting { whenWritable(item.page, item.act) }
    }

    // MARK: windows

    var isWindowOpen: Bool { pauses > 0 || isProtected.contains(true) }

    func step(_ what: String, allowedInWindow: Bool) {
        if isWindowOpen, !allowedInWindow { world.violated("\(name): \(what) inside a window") }
        check("before \(what)")
        hook(what)
    }

    func pauseWriters() {
        if isProtected.contains(true) { world.violated("\(name): a pause while pages are protected") }
        hook("pause")
        pauses += 1
    }

    func resumeWriters() {
        hook("resume")
        check("at the end of a pause")
        pauses -= 1
        if pauses == 0 { runBlocked() }
    }

    func prepareWindow(_ pages: Range<Int>) throws(LinuxError) {
        step("prepare", allowedInWindow: false)
        // Its own errand: the engine does not know which mappings could not be registered when they were made.
        for page in 0..<pageCount { isRegistered[page] = true }
        for page in pages { touch(page) }
    }

    func protect(_ pages: Range<Int>) throws(LinuxError) {
        step("protect", allowedInWindow: true)
        for page in pages where !isRegistered[page] {
            throw LinuxError(operation: "UFFDIO_WRITEPROTECT", code: 2, subject: "page \(page)")
        }
        if sabotage == .noProtection { return }
        for page in pages { isProtected[page] = true }
    }

    func release(_ pages: Range<Int>, replaced: Bool) {
        if pages.isEmpty { return }
        step("release", allowedInWindow: true)
        for page in pages {
            if replaced, isProtected[page] {
                world.violated("\(name): page \(page) released as replaced, and is not")
            }
            isProtected[page] = false
            if sabotage != .noWake { sleepers.remove(page) }
        }
        runBlocked()
    }

    // MARK: the dirty log

    /// As KVM_DIRTY_LOG_INITIALLY_SET.
    func beginLogging() throws(LinuxError) {
        step("begin the log", allowedInWindow: false)
        isLogging = true
    }

    func harvestDirtyPages(into bitmap: inout [UInt64]) throws(LinuxError) {
        step("harvest", allowedInWindow: false)
        if !isLogging { world.violated("\(name): a log that was not begun is read") }
        // As if what was looked at had been cleared after the look instead of before.
        if sabotage == .clearAfterLook { for page in looked { log[page] = false } }
        looked = []
        for page in 0..<pageCount {
            if late[page] { (log[page], late[page]) = (true, false) }
            if log[page] { bitmap[page >> 6] |= 1 << UInt64(page & 63) }
            if lagging[page] { (late[page], lagging[page]) = (true, false) }
        }
    }

    func clearDirtyPages(_ bitmap: [UInt64]) throws(LinuxError) {
        step("clear", allowedInWindow: false)
        for page in bitmap.indices { clear(page, bitmap) }
    }

    private func clear(_ word: Int, _ bitmap: [UInt64]) {
        for page in word * 64..<min(word * 64 + 64, pageCount)
        where bitmap[word] & (1 << UInt64(page & 63)) != 0 {
            log[page] = false
        }
    }

    /// Where backings begin, which the kernel might have in more pieces.
    func countBackings() -> Int {
        1 + (1..<pageCount).reduce(0) { $0 + (continues($1) ? 0 : 1) }
    }

    func countMappings() -> MappingCount? {
        let count = mappingStarts(in: 0..<pageCount).count
        return MappingCount(guest: count, process: count + others, limit: mappingLimit)
    }

    func hasMemory(for work: SharingWork) -> Bool {
        step("ask for heap", allowedInWindow: false)
        requests += 1
        return !refusedRequests.contains(requests)
    }

    func mappingStarts(in pages: Range<Int>) -> [Int] {
        pages.filter { $0 == 0 || !continues($0) || cuts.contains($0) }
    }

    private func continues(_ page: Int) -> Bool {
        switch (backing[page - 1], backing[page]) {
        case (.home, .home), (.zero, .zero): true
        case (.frame(let a, let left), .frame(let b, let right)): a == b && left.advanced(by: 1) == right
        default: false
        }
    }

    func remember(_ page: Int) {
        oldContents[page] = visible(page)
        looked.append(page)
    }
    func remembered(_ page: Int) -> Content { oldContents[page] }
}
