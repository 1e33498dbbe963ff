// Whether guest memory is still where a call failed that should have replaced it. Asked in a window, so it takes a bounded number
// of system calls and no memory, however many mappings the process has.
//
// Something is mapped there. Where the kernel may have left a hole, another thread's mmap may have got the place meanwhile, and
// its mapping is not to be taken for the guest's. Two marks tell:
//  1. Guest memory is registered for write protection, and nothing else in this process is: lifting protection fails elsewhere.
//  2. Without userfaultfd (windows are pauses then): each page holds the bytes that it held, and where those are zeros, which a
//     new mapping holds as well, it is in the page table, as what was touched before; a mapping that another thread has just
//     made is not, or else holds what that thread wrote. A hole takes all of a range, so it takes every page to look so.

internal import CLinux
internal import GuestMemory
internal import LinuxHost
internal import Glibc

// SAFETY (whole file): as in LinuxGuestMapping.swift; what may be somebody else's memory is read by the kernel, which fails where
// there is nothing.
extension LinuxGuestMapping {
    /// Whether a range is mapped as before a call that failed.
    /// - Parameters:
    ///   - source: the bytes that it held.
    ///   - whoeverLeftIt: what is there may be another thread's.
    ///   - wasRegistered: it was registered for write protection before the call; if not, all of it was touched.
    func isIntact(_ pages: Range<Int>, _ source: Source, whoeverLeftIt: Bool, _ wasRegistered: Bool) -> Bool {
        guard isMapped(address(pages), pages.count) else { return false }
        if !whoeverLeftIt { return true }
        return wasRegistered ? canBeProtected(pages) : holdsItsBytes(pages, source)
    }

    /// Whether something is mapped everywhere in a range.
    func isMapped(_ start: UInt, _ count: Int) -> Bool {
        var done = 0
        while done < count {
            let some = min(count - done, residency.count)
            let pointer = unsafe UnsafeMutableRawPointer(bitPattern: start + UInt(done * Self.pageSize))
            guard unsafe mincore(pointer, some * Self.pageSize, &residency) == 0 else { return false }
            done += some
        }
        return true
    }

    /// Guest memory is left as it is but for its protection, which the window that failed does not need any more.
    private func canBeProtected(_ pages: Range<Int>) -> Bool {
        guard let userFault else { return false }
        do throws(LinuxError) {
            try userFault.protect(address(pages), pages.count * Self.pageSize, false)
            return true
        } catch {
            // Before Linux 6.4, a request may not reach beyond one mapping.
            guard error.code == ENOENT, pages.count > 1 else { return false }
            let middle = pages.lowerBound + pages.count / 2
            return canBeProtected(pages.lowerBound..<middle) && canBeProtected(middle..<pages.upperBound)
        }
    }

    private func holdsItsBytes(_ pages: Range<Int>, _ source: Source) -> Bool {
        var kept = 0
        return pageMap.look(address(pages), count: pages.count) { index, isThere, isOfFile in
            let (found, start) = unsafe (
                fetched(copyLimit + 1), address(pages) + UInt(index * Self.pageSize)
            )
            guard let expected = unsafe bytes(index, of: source, &kept),
                unsafe mingle_read_own(UnsafeRawPointer(bitPattern: start), found, Self.pageSize) == 0,
                unsafe memcmp(expected, found, Self.pageSize) == 0
            else { return false }
            if isThere || isOfFile { return true }
            // Home's and the store's pages may leave the page table at any time; by the look they are in it again.
            return unsafe mingle_page_is_uniform(found, 0) == 0 || pageMap.isOfFile(start)
        }
    }

    /// Brings pages into the page table.
    func touch(_ pages: Range<Int>) { for page in pages { _ = unsafe mingle_load8(pointer(page)) } }
}
