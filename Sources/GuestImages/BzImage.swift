/// A packed x86 Linux kernel (bzImage, usually called vmlinuz), and how to get the plain vmlinux out of it, which a VMM
/// can enter directly and much faster.
///
/// The offsets are those of the kernel's Documentation/x86/boot.rst, "The Real-Mode Kernel Header".
public struct BzImage: Sendable {
    /// Largest vmlinux that is unpacked unless the caller says otherwise, in bytes.
    public static let defaultMaximumSize = 256 << 20

    private enum Offset {
        static let setupSectors = 0x1F1
        static let bootFlag = 0x1FE
        static let jumpDistance = 0x201
        static let magic = 0x202
        static let version = 0x206
        static let kernelVersion = 0x20E
        static let payloadOffset = 0x248
        static let payloadLength = 0x24C
        static let end = 0x250
    }
    private static let sectorSize = 512
    private static let headerMagic = Array("HdrS".utf8)
    private static let oldestVersion: UInt16 = 0x0208
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
    private let reader: ByteReader

    /// Whether the bytes look like such an image at all; `init` tells what is wrong with one that is damaged.
    public static func isBzImage(_ bytes: [UInt8]) -> Bool {
        ByteReader(bytes: bytes).matches(headerMagic, at: Offset.magic)
    }

    /// Reads and checks the boot header.
    /// - Throws: `invalidKernelImage`, or `unsupportedCompression`.
    public init(_ bytes: [UInt8]) throws(GuestImagesError) {
        let reader = ByteReader(bytes: bytes)
        func fail(_ reason: String) -> GuestImagesError { .invalidKernelImage(reason: reason) }
        guard let setupSectors = reader.uint8(at: Offset.setupSectors),
            let bootFlag = reader.uint16(at: Offset.bootFlag),
            let jump = reader.uint8(at: Offset.jumpDistance),
            let version = reader.uint16(at: Offset.version),
            let versionText = reader.uint16(at: Offset.kernelVersion),
            let payloadOffset = reader.uint32(at: Offset.payloadOffset),
            let payloadLength = reader.uint32(at: Offset.payloadLength)
        else { throw fail("its \(bytes.count) bytes end within the boot header") }
        guard bootFlag == 0xAA55 else { throw fail("the boot flag is missing") }
        guard reader.matches(Self.headerMagic, at: Offset.magic) else {
            throw fail("the magic 'HdrS' is missing")
        }
        guard version >= Self.oldestVersion else {
            throw fail("boot protocol \(version >> 8).\(version & 0xFF) is older than 2.08")
        }
        guard Offset.magic + Int(jump) >= Offset.end else {
            throw fail("its boot header is too short for a payload")
        }
        // 0 sectors mean 4, for the sake of very old images; one more is the boot sector.
        let codeStart = (Int(setupSectors == 0 ? 4 : setupSectors) + 1) * Self.sectorSize
        guard
            let payload = reader.range(
                start: UInt64(codeStart) + UInt64(payloadOffset), count: UInt64(payloadLength))
        else {
            throw fail(
                "a payload of \(payloadLength) bytes at \(codeStart) + \(payloadOffset) goes beyond its \(bytes.count) bytes"
            )
        }
        guard payload.count > Self.sizeFieldLength else { throw fail("it has no payload") }
        guard let size = reader.uint32(at: payload.upperBound - Self.sizeFieldLength) else {
            throw fail("it has no payload")
        }
        self.compression = try Compression.detect(bytes[payload])
        self.protocolVersion = version
        self.kernelVersion =
            versionText == 0 ? nil : reader.text(at: Int(versionText) + Self.sectorSize, limit: 256)
        self.payload = payload
        self.unpackedSize = Int(size)
        self.reader = reader
    }

    /// Unpacks the kernel and checks that an x86-64 ELF came out whose segments can be loaded.
    /// - Parameter maximumSize: in bytes; a kernel that claims more is refused before anything is unpacked.
    public func extractVmlinux(maximumSize: Int = defaultMaximumSize) throws(GuestImagesError) -> [UInt8] {
        guard unpackedSize <= maximumSize else {
            throw .outputTooLarge(limit: maximumSize, expected: unpackedSize)
        }
        let packed =
            payload.lowerBound..<payload.upperBound - (compression == .gzip ? 0 : Self.sizeFieldLength)
        let vmlinux = try compression.decompress(reader.bytes[packed], limit: unpackedSize)
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
