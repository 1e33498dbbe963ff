package import FrameStore
internal import CLinux
package import GuestMemory
package import LinuxHost
internal import Glibc

/// The engine's hands on a real guest: maps, compares, protects; with `LinuxGuestMapping+Replace.swift` the one place that
/// replaces parts of the guest's mapping. The scanner's thread uses it.
@safe
package final class LinuxGuestMapping: GuestMapping {
    static let pageSize = Int(Page.size)

    package let pageCount: Int
    /// Pages of the buffer.
    package let copyLimit = 256
    package var viewLimit: Int { copyLimit }
    private var viewed = ViewedFrames()
    let memory: GuestMemory
    let userFault: UserFault?
    let pageMap: PageMap
    let maps: ProcessMaps
    let limits = ProcessLimits()
    /// Fetched frames; a stage for pages that go home; two pages more, for what goes home because a mapping failed, and for a look
    /// at what is there then.
    let buffer: MemoryMapping
    /// Address space in which a stretch with kept pages is put together before it takes its place.
    private(set) var scratch: MemoryMapping
    private static let scratchSize = 256 * Page.size
    private var scratchesLeft = 16
    /// What mincore(2) says of a range that the kernel failed to replace.
    var residency = [UInt8](repeating: 0, count: 1024)
    var connection: StoreConnection?
    /// All of guest memory is registered for write protection, if that is to be had.
    var isRegistered = false
    private var lastYield: UInt64 = 0
    var hasScratch = true
    /// A move takes address space for a moment; as of the last time that frames were fetched.
    var hasSpaceToMove = true
    var calls: MappingCalls
    /// Whether a mapping is tried elsewhere before it is made.
    var triesFirst: Bool
    #if DEBUG
        /// Windows do not keep writers out: a test shall notice.
        package var leavesUnprotected = false
    #endif

    /// - Parameter userFault: nil leaves only pauses as windows, and no kept pages in a stretch.
    package init(memory: GuestMemory, userFault: UserFault?, calls: MappingCalls = .kernel) throws(LinuxError)
    {
        self.memory = memory
        self.calls = calls
        triesFirst = calls.isCommitLimited
        self.userFault = userFault
        pageCount = Int(memory.sizeInBytes >> Page.shift)
        pageMap = try PageMap()
        maps = try ProcessMaps()
        buffer = try .anonymous(sizeInBytes: UInt64(copyLimit + 2) * Page.size)
        scratch = try .anonymous(sizeInBytes: Self.scratchSize)
        if userFault?.ability == .protect { try register() }
    }

    /// Connects a domain's store. What maps the frames of an earlier one goes on doing so.
    package func connect(_ connection: StoreConnection) { self.connection = connection }

    // MARK: addresses; SAFETY (whole file): every page number is checked against the mapping's length before it becomes
    // an address, so each pointer below points into the guest's one mapping, the buffer or the scratch.

    func address(_ pages: Range<Int>) -> UInt {
        precondition(pages.lowerBound >= 0 && pages.upperBound <= pageCount, "pages of the guest")
        return unsafe UInt(bitPattern: memory.mapping.base) + UInt(pages.lowerBound * Self.pageSize)
    }
    func pointer(_ page: Int) -> UnsafeMutableRawPointer {
        precondition(page >= 0 && page < pageCount, "a page of the guest")
        return unsafe memory.mapping.base + page * Self.pageSize
    }
    func fetched(_ index: Int) -> UnsafeMutableRawPointer {
        precondition(index >= 0 && index <= copyLimit + 1, "a page of the buffer")
        return unsafe buffer.base + index * Self.pageSize
    }

    // MARK: looking

    package func inspect(_ page: Int) -> PageContent {
        let first = unsafe mingle_load64(pointer(page))
        if unsafe mingle_page_is_uniform(pointer(page), first) != 0 {
            return first == 0 ? .zero : .uniform(first)
        }
        return .other(hash(page))
    }

    package func hash(_ page: Int) -> ContentHash {
        guard let connection else { return ContentHash(low: 0, high: 0) }
        return unsafe connection.hasher.hash(
            UnsafeRawBufferPointer(start: pointer(page), count: Self.pageSize))
    }

    package func isZero(_ page: Int) -> Bool { unsafe mingle_page_is_uniform(pointer(page), 0) != 0 }

    package func stage(_ page: Int, slot: Int) {
        unsafe connection?.staging.withStagingSlot(UInt32(slot)) { target in
            guard let base = target.baseAddress else { return }
            unsafe mingle_copy(base, pointer(page), Self.pageSize)
        }
    }

    package func view(_ first: FrameLocation, count: Int) -> Bool {
        guard let place = viewed.add(first, count: count, limit: viewLimit) else { return false }
        if !hasScratch { renewScratch() }
        hasSpaceToMove = limits.addressSpaceLeft() >= 2 * copyLimit * Self.pageSize
        if unsafe readFrames(first, count, fetched(place)) == count { return true }
        viewed.removeLast()
        return false
    }

    package func equals(_ page: Int, _ frame: FrameLocation) -> Bool {
        guard let place = viewed.place(of: frame) else { return false }
        return unsafe memcmp(pointer(page), fetched(place), Self.pageSize) == 0
    }

    package func endView() { viewed.removeAll() }

    func readFrames(_ location: FrameLocation, _ count: Int, _ target: UnsafeMutableRawPointer) -> Int {
        guard let connection else { return 0 }
        let wanted = count * Self.pageSize
        var done = 0
        while done < wanted {
            let got = unsafe pread(
                connection.fileNumber, target + done, wanted - done, Int(location.fileOffset) + done)
            if got < 0, errno == EINTR { continue }
            if got <= 0 { break }
            done += got
        }
        return done / Self.pageSize
    }

    // MARK: windows

    package func prepareWindow(_ pages: Range<Int>) throws(LinuxError) {
        yieldNowAndThen()
        if !isRegistered { try register() }
        // Protection holds on pages that are there: touch them.
        touch(pages)
    }

    /// A window is far shorter than a time slice, and the guest's writers wait for whoever is preempted in it: so it begins
    /// with a slice that is fresh.
    private func yieldNowAndThen() {
        let now = monotonicNanoseconds()
        guard now - lastYield > 1_000_000 else { return }
        sched_yield()
        lastYield = monotonicNanoseconds()
    }

    private func register() throws(LinuxError) {
        guard let userFault, userFault.ability == .protect else {
            throw LinuxError(operation: "UFFDIO_REGISTER", code: EPERM)
        }
        try userFault.register(address(0..<pageCount), pageCount * Self.pageSize, .writeProtect)
        isRegistered = true
    }

    package func protect(_ pages: Range<Int>) throws(LinuxError) {
        guard let userFault else { throw LinuxError(operation: "UFFDIO_WRITEPROTECT", code: EPERM) }
        #if DEBUG
            if leavesUnprotected { return }
        #endif
        do throws(LinuxError) {
            try userFault.protect(address(pages), pages.count * Self.pageSize, true)
        } catch {
            // Before Linux 6.4, a request may not reach beyond one mapping.
            guard error.code == ENOENT, pages.count > 1 else { throw error }
            let (first, second) = halves(pages)
            try protect(first)
            try protect(second)
        }
    }

    private func halves(_ pages: Range<Int>) -> (Range<Int>, Range<Int>) {
        let middle = pages.lowerBound + pages.count / 2
        return (pages.lowerBound..<middle, middle..<pages.upperBound)
    }

    package func release(_ pages: Range<Int>, replaced: Bool) {
        guard let userFault, !pages.isEmpty else { return }
        let (start, size) = (address(pages), pages.count * Self.pageSize)
        // A new mapping is not protected; who waited for the old one sleeps all the same.
        if replaced { return userFault.wake(start, size) }
        do throws(LinuxError) { try userFault.protect(start, size, false) } catch {
            // Part of the range may be new, or (before Linux 6.4) it is more than one mapping. Everybody is woken.
            if pages.count > 1 {
                let (first, second) = halves(pages)
                release(first, replaced: false)
                release(second, replaced: false)
            }
            userFault.wake(start, size)
        }
    }

    // MARK: home's memory, and proofs

    package func punchHome(_ pages: Range<Int>) {
        // A failure leaves memory allocated that nobody sees; nothing else.
        _ = punch(pages)
    }

    func punch(_ pages: Range<Int>) -> Bool {
        _ = address(pages)
        return mingle_punch_hole(
            memory.file.number, UInt64(pages.lowerBound) * Page.size, UInt64(pages.count) * Page.size) == 0
    }

    package func firstMemoryAtHome(_ pages: Range<Int>) -> Range<Int>? {
        let offset = pages.lowerBound * Self.pageSize
        let (seekData, seekHole): (Int32, Int32) = (3, 4)
        // Fails when there is none up to the end of the file.
        let found = lseek(memory.file.number, offset, seekData)
        guard found >= offset, found / Self.pageSize < pages.upperBound else { return nil }
        let first = found / Self.pageSize
        // The file's end counts as a hole.
        let end = lseek(memory.file.number, found, seekHole) / Self.pageSize
        return first..<min(max(end, first + 1), pages.upperBound)
    }

    package func arePrivate(_ pages: Range<Int>) -> [Bool] {
        pageMap.arePrivate(address(pages), count: pages.count)
    }

    package func releaseBuffers() {
        endView()
        _ = unsafe madvise(buffer.base, buffer.sizeInBytes, Int32(MADV_DONTNEED))
        connection?.staging.discard()
        HeapReserve.giveBack()
    }

    /// The old one may belong to somebody else by now, in part, so it stays where it is.
    private func renewScratch() {
        guard scratchesLeft > 0 else { return }
        do throws(LinuxError) {
            var other = try MemoryMapping.anonymous(sizeInBytes: Self.scratchSize)
            swap(&scratch, &other)
            other.abandon()
        } catch { return }
        scratchesLeft -= 1
        hasScratch = true
    }

    // MARK: what the process has, and may have

    package func countMappings() -> MappingCount? {
        let all = address(0..<pageCount)
        let end = all + UInt(pageCount * Self.pageSize)
        var count = MappingCount(guest: 0, process: 0, limit: limits.mappingLimit())
        do throws(LinuxError) {
            try maps.forEach { entry in
                count.process += 1
                if entry.start >= all, entry.start < end { count.guest += 1 }
            }
        } catch { return nil }
        return count
    }

    package func mappingStarts(in pages: Range<Int>) -> [Int] {
        let all = address(0..<pageCount)
        let wanted = address(pages)
        let end = wanted + UInt(pages.count * Self.pageSize)
        var starts: [Int] = []
        // Some missing: pieces stay apart for now.
        try? maps.forEach { entry in
            if entry.start >= wanted, entry.start < end {
                starts.append(Int(entry.start - all) / Self.pageSize)
            }
        }
        return starts
    }

    package func hasMemory(for work: SharingWork) -> Bool { HeapReserve.has(work.heapBytes) }
}

/// What a client needs of a domain's store to look into it: the file for reading, the key of the hash, the staging area.
package final class StoreConnection {
    let fileNumber: Int32
    let hasher: PageHasher
    let staging: StagingArea
    private let owner: AnyObject

    /// - Parameter owner: keeps the file open as long as it lives.
    package init(fileNumber: Int32, owner: AnyObject, hasher: PageHasher, staging: StagingArea) {
        self.fileNumber = fileNumber
        self.owner = owner
        self.hasher = hasher
        self.staging = staging
    }
}
