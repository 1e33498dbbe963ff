import CLZ4
import CLZMA
import CZlib
import CZstd
import ImageFormats

/// How a kernel or a kernel module is packed.
public enum Compression: String, Sendable, CaseIterable {
    case gzip
    case lz4 = "LZ4"
    case zstd
    case xz
    case lzma

    /// What each packed stream starts with. LZ4 is the legacy frame, the one that the kernel's build makes.
    var magic: [UInt8] {
        switch self {
        case .gzip: [0x1F, 0x8B, 0x08]
        case .lz4: [0x02, 0x21, 0x4C, 0x18]
        case .zstd: [0x28, 0xB5, 0x2F, 0xFD]
        case .xz: [0xFD, 0x37, 0x7A, 0x58, 0x5A, 0x00]
        case .lzma: [0x5D, 0x00, 0x00]
        }
    }

    /// Formats that are recognised to name them in an error.
    private static let unsupported: [(name: String, magic: [UInt8])] = [
        ("bzip2", [0x42, 0x5A, 0x68]),
        ("LZO", [0x89, 0x4C, 0x5A, 0x4F]),
        ("LZ4 in the frame format", [0x04, 0x22, 0x4D, 0x18]),
        ("nothing (it is an ELF file as it is)", ELF64.magic),
    ]

    /// Recognises the format by the first bytes.
    /// - Throws: `unsupportedCompression` with the name, or with the bytes of an unknown one.
    static func detect(_ bytes: ArraySlice<UInt8>) throws(GuestImagesError) -> Compression {
        if let known = allCases.first(where: { bytes.starts(with: $0.magic) }) { return known }
        if let other = unsupported.first(where: { bytes.starts(with: $0.magic) }) {
            throw .unsupportedCompression(name: other.name)
        }
        let start = bytes.prefix(6).map { hexadecimal($0) }.joined(separator: " ")
        throw .unsupportedCompression(name: "something unknown that starts with the bytes \(start)")
    }

    /// Unpacks one stream. Bytes after its end are ignored, but for LZ4, whose stream has no end mark.
    /// - Parameter limit: no more bytes than these come out.
    func decompress(_ input: ArraySlice<UInt8>, limit: Int) throws(GuestImagesError) -> [UInt8] {
        var failure: GuestImagesError?
        // SAFETY: each decoder writes only within the output buffer it is given and returns how much it wrote; the
        // bytes up to that count are initialised then.
        let output = unsafe [UInt8](unsafeUninitializedCapacity: max(limit, 1)) { buffer, count in
            let room = unsafe UnsafeMutableBufferPointer(rebasing: buffer[..<limit])
            unsafe input.withUnsafeBufferPointer { source in
                do throws(GuestImagesError) {
                    count =
                        switch self {
                        case .gzip: try unsafe Self.inflateGzip(source, room)
                        case .lz4: try unsafe Self.decodeLZ4(source, room)
                        case .zstd: try unsafe Self.decodeZstd(source, room)
                        case .xz, .lzma: try unsafe Self.decodeLZMA(source, room, alone: self == .lzma)
                        }
                } catch {
                    failure = error
                    count = 0
                }
            }
        }
        if let failure { throw failure }
        return output
    }

    private typealias Source = UnsafeBufferPointer<UInt8>
    private typealias Room = UnsafeMutableBufferPointer<UInt8>

    private static func inflateGzip(_ source: Source, _ room: Room) throws(GuestImagesError) -> Int {
        guard source.count <= UInt32.max, room.count <= UInt32.max else {
            throw .outputTooLarge(limit: Int(UInt32.max), expected: nil)
        }
        var stream = unsafe z_stream()
        // zlib's fields are mutable pointers, but it does not write its input.
        unsafe stream.next_in = UnsafeMutablePointer(mutating: source.baseAddress)
        unsafe stream.avail_in = UInt32(source.count)
        unsafe stream.next_out = room.baseAddress
        unsafe stream.avail_out = UInt32(room.count)
        let gzipHeader: Int32 = 16
        // SAFETY: the stream is initialised before use and released after it; both buffers outlive the call.
        let ready = unsafe inflateInit2_(
            &stream, gzipHeader + MAX_WBITS, ZLIB_VERSION, Int32(MemoryLayout<z_stream>.size))
        guard ready == Z_OK else {
            throw .decompressionFailed(format: "gzip", reason: "zlib cannot start (\(ready))")
        }
        let status = unsafe inflate(&stream, Z_FINISH)
        let written = unsafe room.count - Int(stream.avail_out)
        let full = unsafe stream.avail_out == 0
        unsafe inflateEnd(&stream)
        switch status {
        case Z_STREAM_END: return written
        case Z_BUF_ERROR where full: throw .outputTooLarge(limit: room.count, expected: nil)
        case Z_BUF_ERROR: throw .decompressionFailed(format: "gzip", reason: "it is cut off")
        default: throw .decompressionFailed(format: "gzip", reason: "zlib error \(status)")
        }
    }

    /// The legacy frame: the magic, then blocks of a 32-bit size and as many bytes, each at most 8 MiB unpacked.
    private static func decodeLZ4(_ source: Source, _ room: Room) throws(GuestImagesError) -> Int {
        func fail(_ reason: String) -> GuestImagesError {
            .decompressionFailed(format: "LZ4", reason: reason)
        }
        let blockLimit = 8 << 20
        var at = Compression.lz4.magic.count
        var written = 0
        while at < source.count {
            guard source.count - at >= 4 else { throw fail("it is cut off within a block's size") }
            var size = 0
            // SAFETY: `at + 3` was just checked to lie within the buffer.
            for index in 0..<4 { size |= unsafe Int(source[at + index]) << (8 * index) }
            at += 4
            guard size > 0, size <= source.count - at else {
                throw fail("a block of \(size) bytes goes beyond the end")
            }
            guard size <= LZ4_compressBound(Int32(blockLimit)) else {
                throw fail("a block of \(size) bytes is too big")
            }
            let space = min(blockLimit, room.count - written)
            guard let from = source.baseAddress, let to = room.baseAddress else {
                throw fail("it is empty")
            }
            // SAFETY: both places lie within their buffers, and LZ4_decompress_safe stays within the sizes given.
            let count = unsafe LZ4_decompress_safe(
                UnsafeRawPointer(from + at).assumingMemoryBound(to: CChar.self),
                UnsafeMutableRawPointer(to + written).assumingMemoryBound(to: CChar.self), Int32(size),
                Int32(space))
            guard count >= 0 else {
                throw fail("a block is malformed, or there is more than the size promised")
            }
            at += size
            written += Int(count)
        }
        return written
    }

    private static func decodeZstd(_ source: Source, _ room: Room) throws(GuestImagesError) -> Int {
        guard let context = unsafe ZSTD_createDCtx() else {
            throw .decompressionFailed(format: "zstd", reason: "no memory")
        }
        defer { unsafe ZSTD_freeDCtx(context) }
        // SAFETY: the buffers outlive the call and their positions never pass their sizes; the context is released
        // above.
        var input = unsafe ZSTD_inBuffer(src: source.baseAddress, size: source.count, pos: 0)
        var output = unsafe ZSTD_outBuffer(dst: room.baseAddress, size: room.count, pos: 0)
        // The kernel packs with a window of 128 MiB.
        let windowLimit: Int32 = 27
        _ = unsafe ZSTD_DCtx_setParameter(context, ZSTD_d_windowLogMax, windowLimit)
        while true {
            let before = unsafe (input.pos, output.pos)
            let status = unsafe ZSTD_decompressStream(context, &output, &input)
            guard ZSTD_isError(status) == 0 else {
                throw .decompressionFailed(
                    format: "zstd", reason: unsafe String(cString: ZSTD_getErrorName(status)))
            }
            if status == 0 { return unsafe output.pos }
            guard unsafe (input.pos, output.pos) != before else {
                if unsafe output.pos == output.size {
                    throw .outputTooLarge(limit: room.count, expected: nil)
                }
                throw .decompressionFailed(format: "zstd", reason: "it is cut off")
            }
        }
    }

    private static func decodeLZMA(_ source: Source, _ room: Room, alone: Bool) throws(GuestImagesError)
        -> Int
    {
        let format = alone ? "lzma" : "xz"
        var stream = unsafe lzma_stream()
        unsafe stream.next_in = source.baseAddress
        unsafe stream.avail_in = source.count
        unsafe stream.next_out = room.baseAddress
        unsafe stream.avail_out = room.count
        let memoryLimit: UInt64 = 256 << 20
        // SAFETY: the stream is zeroed, initialised before use and released after it; both buffers outlive the calls.
        let ready =
            unsafe alone
            ? lzma_alone_decoder(&stream, memoryLimit) : lzma_stream_decoder(&stream, memoryLimit, 0)
        guard ready == LZMA_OK else {
            throw .decompressionFailed(format: format, reason: "liblzma cannot start (\(ready.rawValue))")
        }
        defer { unsafe lzma_end(&stream) }
        var status = LZMA_OK
        while status == LZMA_OK { status = unsafe lzma_code(&stream, LZMA_FINISH) }
        if status == LZMA_STREAM_END { return unsafe room.count - stream.avail_out }
        if status == LZMA_BUF_ERROR {
            if unsafe stream.avail_out == 0 { throw .outputTooLarge(limit: room.count, expected: nil) }
            throw .decompressionFailed(format: format, reason: "it is cut off")
        }
        throw .decompressionFailed(format: format, reason: "liblzma error \(status.rawValue)")
    }
}

/// Two hexadecimal digits.
func hexadecimal(_ byte: UInt8) -> String {
    (byte < 16 ? "0" : "") + String(byte, radix: 16)
}
