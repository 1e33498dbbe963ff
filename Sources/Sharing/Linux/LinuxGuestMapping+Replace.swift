// Replaces parts of the guest's mapping, and sets right what the kernel leaves behind when it fails at that.
//
// mmap over a mapping takes that away first. When it then fails, Linux puts it back from 6.12 on (mmap_region,
// vms_abort_munmap_vmas); an older kernel leaves nothing there, and so does mremap on every kernel. So after a failure,
// while writers still wait:
//  1. The same mapping is tried again, where nothing is (MAP_FIXED_NOREPLACE).
//  2. Something is there: what was there before. Unless another thread's mmap was given the address meanwhile: where
//     that can be, the range must bear marks that only guest memory has (`LinuxGuestMapping+Intact`).
//  3. Nothing is there: the bytes, which are known, are written home, and home takes the place.
//  4. That fails too: the guest is lost. A mapping that nobody can access keeps the place from others until it is stopped.
// Where a failure may leave nothing behind, each mapping is tried elsewhere first as soon as one has failed, or from the start
// if the kernel limits what may be committed (vm.overcommit_memory=2): a failure there takes nothing away.
// All of it is a few system calls for the range and two for each of its pages, whatever else the process has mapped, and allocates
// nothing.
// A reader that comes between the failure and the repair finds nothing mapped, and ends the guest: see docs/sharing.md.

package import FrameStore
internal import CLinux
internal import GuestMemory
internal import LinuxHost
internal import Glibc

// SAFETY (whole file): as in LinuxGuestMapping.swift, every page number is checked before it becomes an address; offsets
// into the scratch are of pages of a range that was checked to be no longer than it.
extension LinuxGuestMapping {
    /// Where the bytes of a range are found that lost its mapping.
    enum Source {
        case frames(FrameLocation)
        case zeros
        case scratch
        /// For each page: the next of the buffer, or else where all the others are.
        case rearranged([Bool], PageBacking)
        /// At home: there is no other place to go.
        case home
    }

    package func mapFrames(_ pages: Range<Int>, _ location: FrameLocation) throws(MappingFailure) {
        guard let connection else { throw .unchanged(LinuxError(operation: "mmap", code: EBADF)) }
        try replace(
            pages, .frames(location), flags: MAP_PRIVATE | MAP_NORESERVE, descriptor: connection.fileNumber,
            offset: location.fileOffset)
    }

    package func mapZero(_ pages: Range<Int>) throws(MappingFailure) {
        try replace(
            pages, .zeros, flags: MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, descriptor: -1, offset: 0)
    }

    package func mapHome(_ pages: Range<Int>) throws(MappingFailure) {
        precondition(pages.count <= copyLimit, "as many pages as the buffer has")
        for (index, page) in pages.enumerated() {
            unsafe mingle_copy(fetched(index), pointer(page), Self.pageSize)
        }
        // Home's pages are hidden still: they are complete before anybody sees them, and if there is no memory for them, or
        // the mapping fails, what can be seen is as it was. Zeros need none, unless an earlier punch left some behind.
        let isEmpty = punch(pages)
        for (index, page) in pages.enumerated()
        where unsafe !isEmpty || mingle_page_is_uniform(fetched(index), 0) == 0 {
            guard unsafe writeHome(page, fetched(index)) else {
                throw .unchanged(.current("pwrite", "a page that goes home"))
            }
        }
        try replace(
            pages, .home, flags: MAP_SHARED | MAP_NORESERVE, descriptor: memory.file.number,
            offset: homeOffset(pages))
    }

    package func mapFrames(
        _ pages: Range<Int>, _ location: FrameLocation, keeping kept: [Int]
    ) throws(MappingFailure) -> Bool {
        guard let userFault, let connection, pages.count <= copyLimit, hasScratch, hasSpaceToMove else {
            return false
        }
        let size = pages.count * Self.pageSize
        let base = unsafe UInt(bitPattern: scratch.base)
        // The stretch itself, and what the move leaves behind.
        if triesFirst, !calls.hasRoom(2 * size, true) { return false }
        guard mapScratch(size, MAP_PRIVATE, connection.fileNumber, location.fileOffset) else { return false }
        defer { restoreScratch(size) }
        do throws(LinuxError) {
            try userFault.register(base, size, .missing)
            // Copies of zeros too: the kernel's zero page over a file is taken away when the file is punched there.
            for page in kept {
                let target = base + UInt((page - pages.lowerBound) * Self.pageSize)
                try userFault.fill(target, from: address(page..<page + 1))
            }
        } catch { return false }
        userFault.unregister(base, size)
        let wasRegistered = isRegistered
        if !wasRegistered { touch(pages) }
        // The whole stretch takes its place at once: no reader sees a page of the store where a kept one belongs.
        let code = calls.move(base, size, address(pages))
        if code == 0 {
            registerNew(pages)
            return true
        }
        triesFirst = true
        isRegistered = false
        if isIntact(pages, .scratch, whoeverLeftIt: true, wasRegistered) { return false }
        try repair(pages, .scratch, LinuxError(operation: "mremap", code: code, subject: Self.subject))
    }

    package func rearrange(
        _ pages: Range<Int>, _ target: PageBacking, keeping: inout [Bool]
    ) throws(MappingFailure) -> Bool {
        precondition(keeping.count == pages.count && target != .home, "pages and what to keep of them")
        guard pageMap.addPrivate(address(pages), to: &keeping) else { return false }
        let kept = keeping.count { $0 }
        // Without userfaultfd, each kept page would take one of the store as well.
        guard kept <= copyLimit, kept == 0 || target == .zero || userFault != nil else { return false }
        var next = 0
        for (offset, page) in pages.enumerated() where keeping[offset] {
            unsafe mingle_copy(fetched(next), pointer(page), Self.pageSize)
            next += 1
        }
        if case .frame(let location) = target {
            guard let connection else { throw .unchanged(LinuxError(operation: "mmap", code: EBADF)) }
            try replace(
                pages, .rearranged(keeping, target), flags: MAP_PRIVATE | MAP_NORESERVE,
                descriptor: connection.fileNumber, offset: location.fileOffset)
        } else {
            try replace(
                pages, .rearranged(keeping, target), flags: MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE,
                descriptor: -1, offset: 0)
        }
        if target == .zero || !fill(pages, keeping) { copyBack(pages, keeping, skipsZeros: target == .zero) }
        return true
    }

    /// Registers a new mapping at once: before it has private pages, so that the kernel joins it with its neighbours, and
    /// before anything that is put to its left could be joined with it instead of with its own left neighbour.
    private func registerNew(_ pages: Range<Int>) {
        guard let userFault, userFault.ability == .protect else { return }
        do throws(LinuxError) {
            try userFault.register(address(pages), pages.count * Self.pageSize, .writeProtect)
        } catch { isRegistered = false }
    }

    /// Makes private copies without a look at the file below: a write would have the kernel allocate a page there first.
    /// - Returns: false when some are missing.
    private func fill(_ pages: Range<Int>, _ keeping: [Bool]) -> Bool {
        guard let userFault else { return false }
        let (start, size) = (address(pages), pages.count * Self.pageSize)
        // Any registration will do to fill pages. One for missing pages is never left: who touches one waits for ever.
        let isNeeded = userFault.ability == .fill || !isRegistered
        defer { if isNeeded { userFault.unregister(start, size) } }
        do throws(LinuxError) {
            if isNeeded { try userFault.register(start, size, .missing) }
            var next = 0
            for (offset, page) in pages.enumerated() where keeping[offset] {
                let source = unsafe UInt(bitPattern: fetched(next))
                try userFault.fill(address(page..<page + 1), from: source)
                next += 1
            }
            return true
        } catch { return false }
    }

    private func copyBack(_ pages: Range<Int>, _ keeping: [Bool], skipsZeros: Bool) {
        var next = 0
        for (offset, page) in pages.enumerated() where keeping[offset] {
            // Zeros need no page over zeros.
            if unsafe !skipsZeros || mingle_page_is_uniform(fetched(next), 0) == 0 {
                unsafe mingle_copy(pointer(page), fetched(next), Self.pageSize)
            }
            next += 1
        }
    }

    /// Of errors; a text of its own for each would be allocated in a window.
    private static let subject = "guest memory"

    private func homeOffset(_ pages: Range<Int>) -> UInt64 { UInt64(pages.lowerBound) * Page.size }

    /// One mmap over a range.
    private func replace(
        _ pages: Range<Int>, _ source: Source, flags: Int32, descriptor: Int32, offset: UInt64
    ) throws(MappingFailure) {
        let (start, size) = (address(pages), pages.count * Self.pageSize)
        if triesFirst, calls.mayLeaveHoles, !calls.hasRoom(size, flags & MAP_PRIVATE != 0) {
            throw .unchanged(LinuxError(operation: "mmap", code: ENOMEM, subject: "a trial"))
        }
        let wasRegistered = isRegistered
        if calls.mayLeaveHoles, !wasRegistered { touch(pages) }
        let code = map(start, size, flags | MAP_FIXED, descriptor, offset)
        if code == 0 { return registerNew(pages) }
        triesFirst = true
        isRegistered = false
        if map(start, size, flags | MAP_FIXED_NOREPLACE, descriptor, offset) == 0 { return }
        let error = LinuxError(operation: "mmap", code: code, subject: Self.subject)
        if isIntact(pages, source, whoeverLeftIt: calls.mayLeaveHoles, wasRegistered) {
            throw .unchanged(error)
        }
        try repair(pages, source, error)
    }

    private func map(_ start: UInt, _ size: Int, _ flags: Int32, _ descriptor: Int32, _ offset: UInt64)
        -> Int32
    {
        let code = calls.map(start, size, true, flags, descriptor, offset)
        if code != 0 { return code }
        let target = unsafe UnsafeMutableRawPointer(bitPattern: start)
        // Advice holds for a mapping, so a new one needs it again.
        _ = unsafe madvise(target, size, Int32(MADV_DONTFORK))
        _ = unsafe madvise(target, size, Int32(MADV_DONTDUMP))
        // One write must not make 2 MiB of zeros real, now or by khugepaged.
        if flags & MAP_ANONYMOUS != 0 { _ = unsafe madvise(target, size, Int32(MADV_NOHUGEPAGE)) }
        return 0
    }

    // MARK: repair

    /// A range has lost its mapping, or part of it: home takes its place, with the same bytes.
    private func repair(_ pages: Range<Int>, _ source: Source, _ error: LinuxError) throws(MappingFailure)
        -> Never
    {
        let (start, size) = (address(pages), pages.count * Self.pageSize)
        let flags = MAP_SHARED | MAP_NORESERVE | MAP_FIXED_NOREPLACE
        // Nobody sees home's pages before the mapping is made.
        if writeHome(pages, source), map(start, size, flags, memory.file.number, homeOffset(pages)) == 0 {
            throw .wentHome(pages, error)
        }
        let block = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED_NOREPLACE
        if calls.map(start, size, false, block, -1, 0) != 0 {
            for page in pages { _ = calls.map(address(page..<page + 1), Self.pageSize, false, block, -1, 0) }
        }
        throw .destroyed(error)
    }

    private func writeHome(_ pages: Range<Int>, _ source: Source) -> Bool {
        if case .home = source { return false }
        var kept = 0
        for (index, page) in pages.enumerated() {
            guard let bytes = unsafe bytes(index, of: source, &kept), unsafe writeHome(page, bytes) else {
                return false
            }
        }
        return true
    }

    /// What a page of a range that lost its mapping held, and holds if it did not. Asked of each in turn.
    /// - Parameters:
    ///   - index: of the page in the range.
    ///   - kept: those of the buffer that were given so far.
    /// - Returns: nil when it cannot be told.
    func bytes(_ index: Int, of source: Source, _ kept: inout Int) -> UnsafeMutableRawPointer? {
        let spare = unsafe fetched(copyLimit)
        switch source {
        case .rearranged(let keeping, _) where keeping[index]:
            kept += 1
            return unsafe fetched(kept - 1)
        case .rearranged(_, .frame(let location)), .frames(let location):
            return unsafe readFrames(location.advanced(by: index), 1, spare) == 1 ? spare : nil
        case .rearranged, .zeros: return unsafe memset(spare, 0, Self.pageSize)
        case .home: return unsafe fetched(index)
        case .scratch: return unsafe scratch.base + index * Self.pageSize
        }
    }

    /// Past every mapping: for a page of home that none shows.
    private func writeHome(_ page: Int, _ bytes: UnsafeMutableRawPointer) -> Bool {
        let offset = Int(homeOffset(page..<page + 1))
        var done = 0
        while done < Self.pageSize {
            let count = unsafe pwrite(
                memory.file.number, bytes + done, Self.pageSize - done, offset + done)
            if count < 0, errno == EINTR { continue }
            if count <= 0 { return false }
            done += count
        }
        return true
    }

    // MARK: scratch

    /// Maps something over the scratch's start. The scratch never has a hole, not for a moment (a move leaves a mapping
    /// behind): another thread's mmap might get that address, and lose it to the next stretch. If that may have happened
    /// all the same, the scratch is not used any more.
    private func mapScratch(_ size: Int, _ flags: Int32, _ descriptor: Int32, _ offset: UInt64) -> Bool {
        let base = unsafe UInt(bitPattern: scratch.base)
        if map(base, size, flags | MAP_NORESERVE | MAP_FIXED, descriptor, offset) == 0 { return true }
        if map(base, size, flags | MAP_NORESERVE | MAP_FIXED_NOREPLACE, descriptor, offset) == 0 {
            return true
        }
        // It bears no marks.
        hasScratch = !calls.mayLeaveHoles && isMapped(base, size / Self.pageSize)
        return false
    }

    private func restoreScratch(_ size: Int) { _ = mapScratch(size, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) }
}
