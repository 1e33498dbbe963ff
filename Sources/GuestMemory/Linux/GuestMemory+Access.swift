internal import CLinux
public import LinuxHost
internal import Glibc

// Typed access to guest bytes: every range is checked, every write is counted and marked.
extension GuestMemory {
    /// Copies guest bytes out, once: the copy is what may be acted on.
    public func read(_ address: GuestAddress, count: Int) throws(GuestMemoryError) -> [UInt8] {
        guard count >= 0 else { throw .outOfRange(address, count: 0) }
        if count == 0 { return [] }
        let offset = try offset(of: address, count: UInt64(count))
        return unsafe [UInt8](unsafeUninitializedCapacity: count) { buffer, filled in
            // SAFETY: `offset` checked that the bytes lie in the mapping; the buffer has `count` bytes.
            unsafe mingle_copy(buffer.baseAddress!, mapping.base + offset, count)
            filled = count
        }
    }

    /// Copies bytes into guest memory.
    public func write(_ bytes: [UInt8], at address: GuestAddress) throws(GuestMemoryError) {
        if bytes.isEmpty { return }
        let offset = try offset(of: address, count: UInt64(bytes.count))
        changing(offset, bytes.count) {
            unsafe bytes.withUnsafeBytes { source in
                // SAFETY: `offset` checked that the bytes lie in the mapping.
                unsafe mingle_copy(mapping.base + offset, source.baseAddress!, bytes.count)
            }
        }
    }

    /// Reads a little-endian integer.
    public func load<T: FixedWidthInteger & UnsignedInteger>(
        _ type: T.Type, at address: GuestAddress
    ) throws(GuestMemoryError) -> T {
        try read(address, count: MemoryLayout<T>.size).reversed().reduce(T(0)) { $0 << 8 | T($1) }
    }

    /// Writes a little-endian integer.
    public func store<T: FixedWidthInteger & UnsignedInteger>(
        _ value: T, at address: GuestAddress
    ) throws(GuestMemoryError) {
        try write(
            (0..<MemoryLayout<T>.size).map { UInt8(truncatingIfNeeded: value >> T($0 * 8)) }, at: address)
    }

    /// Reads `count` bytes of a file straight into guest memory, with no copy on the way.
    /// - Throws: `shortFile` when the file ends first.
    public func readFile(
        _ descriptor: borrowing OwnedDescriptor, at fileOffset: UInt64, count: UInt64,
        to address: GuestAddress
    ) throws(GuestMemoryError) {
        if count == 0 { return }
        let offset = try offset(of: address, count: count)
        guard fileOffset <= UInt64(Int64.max) - count else {
            throw .shortFile(address, expected: count, completed: 0)
        }
        let fd = descriptor.number
        var done = 0
        var failure: LinuxError?
        changing(offset, Int(count)) {
            while done < Int(count) {
                // No more at once, so that a file that is shorter than it says costs no memory.
                let piece = min(Int(count) - done, 2 << 20)
                mapping.allocate(offset + done, piece)
                // SAFETY: `offset` checked that `count` bytes lie in the mapping, and `done + piece` is no more.
                let got = unsafe pread(fd, mapping.base + offset + done, piece, Int(fileOffset) + done)
                if got < 0, errno == EINTR { continue }
                if got < 0 { failure = .current("pread") }
                if got <= 0 { break }
                done += got
            }
        }
        if let failure { throw .system(failure) }
        guard done == Int(count) else {
            throw .shortFile(address, expected: count, completed: UInt64(done))
        }
    }

    /// Counts the pages as in flight, runs the write, marks them dirty.
    private func changing(_ offset: Int, _ count: Int, _ body: () -> Void) {
        let pages = (offset >> Int(Page.shift))..<((offset + count - 1) >> Int(Page.shift)) + 1
        inFlight.begin(pages)
        body()
        dirtyBitmap.mark(pages)
        inFlight.end(pages)
    }
}
