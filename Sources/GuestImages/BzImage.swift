internal import ImageFormats

/// A packed x86 Linux kernel (bzImage, usually called vmlinuz), and how to get the plain vmlinux out of it, which a VMM
/// can enter directly and much faster.
public struct BzImage: Sendable {
    /// Largest vmlinux that is unpacked unless the caller says otherwise, in bytes.
    public static let defaultMaximumSize = 256 << 20

    /// The size of the unpacked kernel follows the packed one in the payload (for gzip it is the stream's own).
    private static let sizeFieldLength = 4

    /// Boot protocol, major in the high byte.
    public let protocolVersion: UInt16
    /// The kernel's release and build, as the image tells it.
    public let kernelVersion: String?
    /// Where in the file the packed kernel is, its size field included.
    public let payload: Range<Int>
    public let compression: Compression
    /// Size in bytes that the kernel claims to have once unpacked.
    public let unpackedSize: Int
    private let bytes: [UInt8]

    /// Whether the bytes look like such an image at all; `init` tells what is wrong with one that is damaged.
    public static func isBzImage(_ bytes: [UInt8]) -> Bool {
        BzImageHeader.isBzImage(ByteReader(bytes: bytes))
    }

    /// Reads and checks the boot header.
    /// - Throws: `invalidKernelImage`, or `unsupportedCompression`.
    public init(_ bytes: [UInt8]) throws(GuestImagesError) {
        let source = ImageSource(bytes)
        let header: BzImageHeader
        let range: Range<UInt64>
        do throws(ImageFormatError) {
            header = try BzImageHeader(source)
            range = try header.payload(in: source)
        } catch {
            guard case .damaged(let reason) = error else { throw .invalidKernelImage(reason: "\(error)") }
            throw .invalidKernelImage(reason: reason)
        }
        // It lies within the bytes, whose count is an Int.
        let payload = Int(range.lowerBound)..<Int(range.upperBound)
        let reader = ByteReader(bytes: bytes)
        guard payload.count > Self.sizeFieldLength,
            let size = reader.uint32(at: payload.upperBound - Self.sizeFieldLength)
        else { throw .invalidKernelImage(reason: "it has no payload") }
        self.compression = try Compression.detect(bytes[payload])
        self.protocolVersion = header.protocolVersion
        self.kernelVersion = header.versionTextOffset.flatMap { reader.text(at: Int($0), limit: 256) }
        self.payload = payload
        self.unpackedSize = Int(size)
        self.bytes = bytes
    }

    /// Unpacks the kernel and checks that an x86-64 ELF came out whose segments can be loaded.
    /// - Parameter maximumSize: in bytes; a kernel that claims more is refused before anything is unpacked.
    public func extractVmlinux(maximumSize: Int = defaultMaximumSize) throws(GuestImagesError) -> [UInt8] {
        guard unpackedSize <= maximumSize else {
            throw .outputTooLarge(limit: maximumSize, expected: unpackedSize)
        }
        let packed =
            payload.lowerBound..<payload.upperBound - (compression == .gzip ? 0 : Self.sizeFieldLength)
        let vmlinux = try compression.decompress(bytes[packed], limit: unpackedSize)
        guard vmlinux.count == unpackedSize else {
            throw .invalidKernelImage(
                reason: "\(vmlinux.count) bytes came out instead of the \(unpackedSize) promised")
        }
        try Self.checkVmlinux(vmlinux)
        return vmlinux
    }

    /// Throws unless the bytes are an uncompressed x86-64 kernel whose segments can be loaded.
    public static func checkVmlinux(_ bytes: [UInt8]) throws(GuestImagesError) {
        try ELFFile(bytes, what: "the unpacked kernel").requireLoadable()
    }
}
