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
        Transfer(self, [offset..<offset + bytes.count]).write(bytes, at: 0)
    }

    /// Reads a little-endian integer. The guest may be writing it: then the bytes may be of different times.
    public func load<T: FixedWidthInteger & UnsignedInteger>(
        _ type: T.Type, at address: GuestAddress
    ) throws(GuestMemoryError) -> T {
        let offset = try offset(of: address, count: UInt64(MemoryLayout<T>.size))
        var value = T.zero
        unsafe withUnsafeMutableBytes(of: &value) { buffer in
            // SAFETY: `offset` checked that the bytes lie in the mapping; the buffer is a local of the same size.
            unsafe mingle_copy(buffer.baseAddress!, mapping.base + offset, buffer.count)
        }
        return T(littleEndian: value)
    }

    /// Writes a little-endian integer.
    public func store<T: FixedWidthInteger & UnsignedInteger>(
        _ value: T, at address: GuestAddress
    ) throws(GuestMemoryError) {
        let offset = try offset(of: address, count: UInt64(MemoryLayout<T>.size))
        changing(offset, MemoryLayout<T>.size) {
            unsafe withUnsafeBytes(of: value.littleEndian) { source in
                // SAFETY: as in `load`.
                unsafe mingle_copy(mapping.base + offset, source.baseAddress!, source.count)
            }
        }
    }

    /// Reads an index or the flags of a virtqueue in one access; what the guest wrote before it stored that value is seen by every
    /// read that follows (acquire; virtio 1.2, 2.7.13.3).
    /// - Throws: `misaligned` at an odd address, where no access is atomic.
    public func loadAcquiring(at address: GuestAddress) throws(GuestMemoryError) -> UInt16 {
        let offset = try alignedOffset(of: address)
        // SAFETY: `alignedOffset` checked that the two bytes lie in the mapping, aligned.
        return UInt16(littleEndian: unsafe mingle_load16_acquire(mapping.base + offset))
    }

    /// Writes an index or the flags of a virtqueue in one access; a guest that sees the value sees everything that was written
    /// before (release).
    /// - Throws: as ``loadAcquiring(at:)``.
    public func storeReleasing(_ value: UInt16, at address: GuestAddress) throws(GuestMemoryError) {
        let offset = try alignedOffset(of: address)
        changing(offset, 2) {
            // SAFETY: as in `loadAcquiring`.
            unsafe mingle_store16_release(mapping.base + offset, value.littleEndian)
        }
    }

    /// Between a store and a load that must not pass it: an index that was published, and the flag by which the guest says whether it
    /// wants to hear of it (virtio 1.2, 2.7.7.2).
    public static func fullBarrier() { mingle_full_barrier() }

    private func alignedOffset(of address: GuestAddress) throws(GuestMemoryError) -> Int {
        guard address.value % 2 == 0 else { throw .misaligned(address, alignment: 2) }
        return try offset(of: address, count: 2)
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
        let transfer = Transfer(self, [offset..<offset + Int(count)])
        var done = 0
        while done < Int(count) {
            // No more at once, so that a file that is shorter than it says costs no memory.
            let piece = min(Int(count) - done, 2 << 20)
            mapping.allocate(offset + done, piece)
            let got: Int
            do throws(LinuxError) {
                got = try transfer.read(
                    from: descriptor, at: fileOffset + UInt64(done), into: done..<done + piece)
            } catch { throw .system(error) }
            if got == 0 { break }
            done += got
        }
        guard done == Int(count) else {
            throw .shortFile(address, expected: count, completed: UInt64(done))
        }
    }

    /// A small write: as ``Transfer``, without an allocation.
    private func changing(_ offset: Int, _ count: Int, _ body: () -> Void) {
        let pages = Self.pages(offset..<offset + count)
        inFlight.begin(pages)
        body()
        dirtyBitmap.mark(pages)
        inFlight.end(pages)
    }
}
