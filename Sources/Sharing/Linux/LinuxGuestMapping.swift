internal import CLinux
package import GuestMemory
internal import Glibc

/// The engine's hands on a real guest: maps, compares, protects. The one place that replaces parts of the guest's
/// mapping. The scanner's thread uses it.
@safe
package final class LinuxGuestMapping: GuestMapping {
    private static let pageSize = Int(Page.size)

    package let pageCount: Int
    package let bufferedFrames = 256
    private let memory: GuestMemory
    private let userFault: UserFault?
    private let pageMap: PageMap
    /// Fetched frames; a stage for pages that go home.
    private let buffer: MemoryMapping
    /// Address space in which a stretch with kept pages is put together before it takes its place.
    private let scratch: MemoryMapping
    private var connection: StoreConnection?
    private var isRegistered = false
    private var lastYield: UInt64 = 0
    private var hasScratch = true
    #if DEBUG
        /// Windows do not keep writers out: a test shall notice.
        package var leavesUnprotected = false
    #endif

    /// - Parameter userFault: nil leaves only pauses as windows, and no kept pages in a stretch.
    package init(memory: GuestMemory, userFault: UserFault?) throws(LinuxError) {
        self.memory = memory
        self.userFault = userFault
        pageCount = Int(memory.sizeInBytes >> Page.shift)
        pageMap = try PageMap()
        buffer = try .anonymous(sizeInBytes: UInt64(bufferedFrames) * Page.size)
        scratch = try .anonymous(sizeInBytes: UInt64(bufferedFrames) * Page.size)
        if userFault?.ability == .protect { try register() }
    }

    /// Connects a domain's store. What maps the frames of an earlier one goes on doing so.
    package func connect(_ connection: StoreConnection) { self.connection = connection }

    // MARK: addresses; SAFETY (whole file): every page number is checked against the mapping's length before it becomes
    // an address, so each pointer below points into the guest's one mapping, the buffer or the scratch.

    private func address(_ pages: Range<Int>) -> UInt {
        precondition(pages.lowerBound >= 0 && pages.upperBound <= pageCount, "pages of the guest")
        return unsafe UInt(bitPattern: memory.mapping.base) + UInt(pages.lowerBound * Self.pageSize)
    }
    private func pointer(_ page: Int) -> UnsafeMutableRawPointer {
        precondition(page >= 0 && page < pageCount, "a page of the guest")
        return unsafe memory.mapping.base + page * Self.pageSize
    }
    private func fetched(_ index: Int) -> UnsafeMutableRawPointer {
        precondition(index >= 0 && index < bufferedFrames, "a page of the buffer")
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

    package func fetchFrames(_ location: FrameLocation, count: Int, into index: Int) -> Int {
        guard let connection, count > 0, index >= 0, index + count <= bufferedFrames else { return 0 }
        let wanted = count * Self.pageSize
        var done = 0
        while done < wanted {
            let got = unsafe pread(
                connection.fileNumber, fetched(index) + done, wanted - done, Int(location.fileOffset) + done)
            if got < 0, errno == EINTR { continue }
            if got <= 0 { break }
            done += got
        }
        return done / Self.pageSize
    }

    package func equalsFetched(_ page: Int, index: Int) -> Bool {
        unsafe memcmp(pointer(page), fetched(index), Self.pageSize) == 0
    }

    // MARK: windows

    package func prepareWindow(_ pages: Range<Int>, containsNewMappings: Bool) throws(LinuxError) {
        yieldNowAndThen()
        if containsNewMappings || !isRegistered { try register() }
        // Protection holds on pages that are there: touch them.
        for page in pages { _ = unsafe mingle_load8(pointer(page)) }
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
        // A new mapping is neither registered nor protected, and lifting would fail on it; its writers sleep all the same.
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

    // MARK: replacing

    package func mapFrames(_ pages: Range<Int>, _ location: FrameLocation) throws(MappingFailure) {
        guard let connection else { throw .unchanged(LinuxError(operation: "mmap", code: EBADF)) }
        try replace(
            pages, flags: MAP_PRIVATE | MAP_NORESERVE, descriptor: connection.fileNumber,
            offset: location.fileOffset)
    }

    package func mapZero(_ pages: Range<Int>) throws(MappingFailure) {
        try replace(pages, flags: MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, descriptor: -1, offset: 0)
    }

    package func mapHome(_ pages: Range<Int>) throws(MappingFailure) {
        precondition(pages.count <= bufferedFrames, "as many pages as the buffer has")
        for (index, page) in pages.enumerated() {
            unsafe mingle_copy(fetched(index), pointer(page), Self.pageSize)
        }
        // Zeros need no page where home has none; what an earlier punch may have left there must not show.
        let isEmpty = punch(pages)
        try replace(
            pages, flags: MAP_SHARED | MAP_NORESERVE, descriptor: memory.file.number,
            offset: UInt64(pages.lowerBound) * Page.size)
        for (index, page) in pages.enumerated()
        where unsafe !isEmpty || mingle_page_is_uniform(fetched(index), 0) == 0 {
            unsafe mingle_copy(pointer(page), fetched(index), Self.pageSize)
        }
    }

    package func rearrange(
        _ pages: Range<Int>, _ target: PageBacking, keeping: inout [Bool]
    ) throws(MappingFailure) -> Bool {
        precondition(keeping.count == pages.count && target != .home, "pages and what to keep of them")
        guard pageMap.addPrivate(address(pages), to: &keeping),
            keeping.count(where: { $0 }) <= bufferedFrames
        else { return false }
        var next = 0
        for (offset, page) in pages.enumerated() where keeping[offset] {
            unsafe mingle_copy(fetched(next), pointer(page), Self.pageSize)
            next += 1
        }
        if case .frame(let location) = target { try mapFrames(pages, location) } else { try mapZero(pages) }
        // Registered before it has private pages, it is joined with its left neighbour.
        if userFault?.ability == .protect {
            try? userFault?.register(address(pages), pages.count * Self.pageSize, .writeProtect)
        }
        next = 0
        for (offset, page) in pages.enumerated() where keeping[offset] {
            // Zeros need no page over zeros.
            if unsafe target != .zero || mingle_page_is_uniform(fetched(next), 0) == 0 {
                unsafe mingle_copy(pointer(page), fetched(next), Self.pageSize)
            }
            next += 1
        }
        return true
    }

    /// One mmap over a range. If the kernel took the old mapping away before it failed (before Linux 6.12 it may), the new
    /// one is tried again where nothing is, and takes its place after all.
    private func replace(
        _ pages: Range<Int>, flags: Int32, descriptor: Int32, offset: UInt64
    ) throws(MappingFailure) {
        let (start, size) = (address(pages), pages.count * Self.pageSize)
        if map(start, size, flags | MAP_FIXED, descriptor, offset) == 0 { return }
        let error = LinuxError.current("mmap", "\(pages.count) pages of guest memory")
        if map(start, size, flags | MAP_FIXED_NOREPLACE, descriptor, offset) == 0 { return }
        // Usually EEXIST, but above the limit of mappings the kernel does not look that far.
        if isMapped(start, pages.count) { throw .unchanged(error) }
        throw .destroyed(error)
    }

    private func map(_ start: UInt, _ size: Int, _ flags: Int32, _ descriptor: Int32, _ offset: UInt64)
        -> Int32
    {
        let target = unsafe UnsafeMutableRawPointer(bitPattern: start)
        let result = unsafe mmap(
            target, size, /* prot: */ PROT_READ | PROT_WRITE, flags, descriptor, Int(offset))
        if unsafe result == MAP_FAILED { return -1 }
        // Advice holds for a mapping, so a new one needs it again.
        _ = unsafe madvise(target, size, Int32(MADV_DONTFORK))
        _ = unsafe madvise(target, size, Int32(MADV_DONTDUMP))
        // One write must not make 2 MiB of zeros real, now or by khugepaged.
        if flags & MAP_ANONYMOUS != 0 { _ = unsafe madvise(target, size, Int32(MADV_NOHUGEPAGE)) }
        return 0
    }

    package func mapFrames(
        _ pages: Range<Int>, _ location: FrameLocation, keeping kept: [Int]
    ) throws(MappingFailure) -> Bool {
        guard let userFault, let connection, pages.count <= bufferedFrames, hasScratch else { return false }
        let size = pages.count * Self.pageSize
        let base = unsafe UInt(bitPattern: scratch.base)
        let flags = MAP_PRIVATE | MAP_NORESERVE | MAP_FIXED
        guard map(base, size, flags, connection.fileNumber, location.fileOffset) == 0 else {
            hasScratch = isMapped(base, bufferedFrames)
            return false
        }
        do throws(LinuxError) {
            try userFault.register(base, size, .missing)
            // Copies of zeros too: the kernel's zero page over a file is taken away when the file is punched there.
            for page in kept {
                let target = base + UInt((page - pages.lowerBound) * Self.pageSize)
                try userFault.fill(target, from: address(page..<page + 1))
            }
        } catch {
            restoreScratch(base, size)
            return false
        }
        userFault.unregister(base, size)
        // The whole stretch takes its place at once: no reader sees a page of the store where a kept one belongs.
        let result = unsafe mingle_mremap_onto(
            scratch.base, size, UnsafeMutableRawPointer(bitPattern: address(pages))!)
        restoreScratch(base, size)
        if result < 0 { try probe(pages, LinuxError(operation: "mremap", code: -result)) }
        return result == 0
    }

    /// The scratch never has a hole, not for a moment (the move leaves a mapping behind): another thread's mmap might
    /// get that address, and lose it to the next stretch. If one opened all the same, the scratch is not used any more.
    private func restoreScratch(_ base: UInt, _ size: Int) {
        if map(base, size, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0) == 0 { return }
        hasScratch = isMapped(base, bufferedFrames)
    }

    /// After a failed move: whether the range is still mapped. If not, its content is gone.
    private func probe(_ pages: Range<Int>, _ error: LinuxError) throws(MappingFailure) {
        if !isMapped(address(pages), pages.count) { throw .destroyed(error) }
    }

    /// Whether a whole range is mapped.
    private func isMapped(_ start: UInt, _ count: Int) -> Bool {
        var residency = [UInt8](repeating: 0, count: count)
        let pointer = unsafe UnsafeMutableRawPointer(bitPattern: start)
        return unsafe mincore(pointer, count * Self.pageSize, &residency) == 0
    }

    // MARK: home's memory, and proofs

    package func punchHome(_ pages: Range<Int>) {
        // A failure leaves memory allocated that nobody sees; nothing else.
        _ = punch(pages)
    }

    private func punch(_ pages: Range<Int>) -> Bool {
        _ = address(pages)
        return mingle_punch_hole(
            memory.file.number, UInt64(pages.lowerBound) * Page.size, UInt64(pages.count) * Page.size) == 0
    }

    package func arePrivate(_ pages: Range<Int>) -> [Bool] {
        pageMap.arePrivate(address(pages), count: pages.count)
    }

    package func releaseBuffers() {
        _ = unsafe madvise(buffer.base, Int(UInt64(bufferedFrames) * Page.size), Int32(MADV_DONTNEED))
        connection?.staging.discard()
    }

    package func countMappings() -> Int {
        guard let maps = try? OwnedDescriptor.open("/proc/self/maps", flags: O_RDONLY) else { return 0 }
        var lines = 0
        var offset: UInt64 = 0
        while let bytes = try? maps.read(count: 65536, at: offset), !bytes.isEmpty {
            lines += bytes.reduce(0) { $0 + ($1 == UInt8(ascii: "\n") ? 1 : 0) }
            offset += UInt64(bytes.count)
        }
        return lines
    }
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
