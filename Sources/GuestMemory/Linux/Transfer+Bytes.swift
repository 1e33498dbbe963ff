internal import CLinux
public import LinuxHost
internal import Glibc

extension Transfer {
    /// The most pieces that one preadv(2) takes (IOV_MAX).
    private static let pieceLimit = 1024

    /// Copies bytes of the VMM's to where byte `position` of the transfer goes. All of them must fit.
    public func write(_ bytes: [UInt8], at position: Int) {
        precondition(position >= 0 && bytes.count <= count - position, "the bytes fit the transfer")
        if bytes.isEmpty { return }
        unsafe bytes.withUnsafeBytes { source in
            var taken = 0
            for piece in pieces(position..<position + bytes.count) {
                // SAFETY: a piece lies in the mapping (`beginTransfer` checked it), and all pieces together are as long as the
                // source.
                unsafe mingle_copy(
                    memory.mapping.base + piece.lowerBound, source.baseAddress! + taken, piece.count)
                taken += piece.count
            }
        }
    }

    /// Reads bytes of a file to where these bytes of the transfer go, in one call (pread(2); preadv(2) for several segments). May block, on any thread.
    /// - Parameter range: which of the transfer's bytes; all, if it is nil.
    /// - Returns: how many were read; fewer than asked for at the end of the file, and when there are very many segments.
    public func read(
        from descriptor: borrowing OwnedDescriptor, at fileOffset: UInt64, into range: Range<Int>? = nil
    ) throws(LinuxError) -> Int {
        let wanted = range ?? 0..<count
        precondition(wanted.lowerBound >= 0 && wanted.upperBound <= count, "the bytes fit the transfer")
        guard fileOffset <= UInt64(Int64.max) - UInt64(wanted.count) else {
            throw LinuxError(operation: "preadv", code: EINVAL)
        }
        let pieces = pieces(wanted).prefix(Self.pieceLimit)
        if pieces.isEmpty { return 0 }
        while true {
            let got = read(descriptor.number, Int(fileOffset), pieces)
            if got >= 0 { return got }
            if errno != EINTR { throw .current("pread") }
        }
    }

    private func read(_ descriptor: Int32, _ fileOffset: Int, _ pieces: ArraySlice<Range<Int>>) -> Int {
        // SAFETY (both): pieces lie in the mapping, which lives as long as `memory`; the array is alive for the call.
        if pieces.count == 1, let only = pieces.first {
            return unsafe pread(descriptor, memory.mapping.base + only.lowerBound, only.count, fileOffset)
        }
        let vectors = unsafe pieces.map { piece in
            unsafe iovec(iov_base: memory.mapping.base + piece.lowerBound, iov_len: piece.count)
        }
        return unsafe preadv(descriptor, vectors, Int32(vectors.count), fileOffset)
    }

    /// Where some of its bytes lie in the memory file.
    private func pieces(_ range: Range<Int>) -> [Range<Int>] {
        var found: [Range<Int>] = []
        var start = 0
        for segment in segments {
            let part = range.clamped(to: start..<start + segment.count)
            if !part.isEmpty {
                let shift = segment.lowerBound - start
                found.append(part.lowerBound + shift..<part.upperBound + shift)
            }
            start += segment.count
        }
        return found
    }
}
