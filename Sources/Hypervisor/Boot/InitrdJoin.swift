/// Where the archives of one initrd lie, so that Linux unpacks each of them, whatever they are packed with
/// (Documentation/driver-api/early-userspace/buffer-format.rst; init/initramfs.c, lib/decompress_*.c).
///
/// Linux passes over zero bytes between archives. An archive that is not packed has to begin at a multiple of four. A
/// legacy LZ4 frame has no end mark: where its next block would begin, Linux takes what follows for the size of a
/// block, and only a size of zero ends the frame. So four zero bytes follow every archive but the last.
struct InitrdJoin: Equatable {
    struct Piece: Equatable {
        /// From the start of the initrd, in bytes.
        let offset: UInt64
        let size: UInt64
    }

    private static let endMark: UInt64 = 4
    private static let alignment: UInt64 = 4

    private(set) var pieces: [Piece] = []
    /// Of the whole initrd.
    private(set) var sizeInBytes: UInt64 = 0

    /// Adds an archive of that size behind the others.
    /// - Returns: false if no address space holds that much.
    mutating func append(_ size: UInt64) -> Bool {
        var offset = sizeInBytes
        if !pieces.isEmpty {
            let (end, overflow) = sizeInBytes.addingReportingOverflow(Self.endMark + Self.alignment - 1)
            guard !overflow else { return false }
            offset = end & ~(Self.alignment - 1)
        }
        let (end, overflow) = offset.addingReportingOverflow(size)
        guard !overflow else { return false }
        pieces.append(Piece(offset: offset, size: size))
        sizeInBytes = end
        return true
    }
}
