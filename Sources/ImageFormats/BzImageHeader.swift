/// The boot header of a packed x86 Linux kernel (bzImage), checked. The offsets are those of the kernel's
/// Documentation/arch/x86/boot.rst, "The Real-Mode Kernel Header".
public struct BzImageHeader: Sendable {
    /// "HdrS".
    public static let magic: UInt32 = 0x5372_6448
    /// End of the fields that protocol 2.12 has; and of those that tell where the packed kernel is (2.08).
    private static let (size, smallestSize) = (0x268, 0x250)
    private static let sectorSize: UInt64 = 512
    private static let kernelMagicOffset = 0x202

    private let head: ByteReader
    /// Boot protocol, major in the high byte.
    public let protocolVersion: UInt16
    /// Where in the file the protected-mode part begins.
    public let kernelOffset: UInt64
    /// Where the boot header ends.
    public let end: Int

    /// Whether the bytes look like such an image at all.
    public static func isBzImage(_ head: ByteReader) -> Bool { head.uint32(at: kernelMagicOffset) == magic }

    public init(_ source: ImageSource) throws(ImageFormatError) {
        let head = try source.head(Self.size)
        guard Self.isBzImage(head) else { throw .damaged("neither an ELF file nor a bzImage") }
        guard head.bytes.count >= Self.smallestSize else {
            throw .damaged("truncated: its \(head.bytes.count) bytes end within the boot header")
        }
        guard head.u16(0x1FE) == 0xAA55 else {
            throw .damaged("neither an ELF file nor a bzImage: the boot flag is missing")
        }
        protocolVersion = head.u16(0x206)
        // 0 sectors mean 4, for the sake of very old images; one more is the boot sector.
        kernelOffset = (UInt64(head[0x1F1] == 0 ? 4 : head[0x1F1]) + 1) * Self.sectorSize
        end = min(Self.kernelMagicOffset + Int(head[0x201]), head.bytes.count)
        self.head = head
    }

    /// The version for people.
    public var versionText: String { "\(protocolVersion >> 8).\(protocolVersion & 0xFF)" }

    /// What is needed to enter the kernel by its 64-bit entry, 0x200 bytes into the protected-mode part.
    public struct Entry64: Sendable {
        /// Bytes 0x1F1 up to the header's end, to be copied to boot_params.
        public let setupHeader: [UInt8]
        /// Where it wants to be (pref_address), and how much RAM it needs from there on until it has a memory map of its
        /// own (init_size).
        public let loadAddress: UInt64
        public let sizeInMemory: UInt64
        /// Highest address that an initrd may occupy.
        public let initrdLimit: UInt64
    }

    /// - Throws: `damaged` where the kernel has no 64-bit entry.
    public func entry64() throws(ImageFormatError) -> Entry64 {
        guard head.bytes.count >= Self.size else {
            throw .damaged("truncated: its \(head.bytes.count) bytes end within the boot header")
        }
        // loadflags: LOADED_HIGH; xloadflags: XLF_KERNEL_64
        guard protocolVersion >= 0x20C, head[0x211] & 1 != 0, head.u16(0x236) & 1 != 0 else {
            throw .damaged(
                "a bzImage of protocol \(versionText) without a 64-bit entry: Linux 3.8 or later is needed")
        }
        guard end >= 0x238 else { throw .damaged("its boot header ends at 0x\(hex(UInt64(end)))") }
        return Entry64(
            setupHeader: Array(head.bytes[0x1F1..<end]), loadAddress: head.u64(0x258),
            sizeInMemory: UInt64(head.u32(0x260)), initrdLimit: UInt64(head.u32(0x22C)))
    }

    /// Where in the file the packed kernel is, its size field included (payload_offset, payload_length).
    /// - Throws: `damaged` where the header has no such field, or the file not so many bytes.
    public func payload(in source: ImageSource) throws(ImageFormatError) -> Range<UInt64> {
        guard protocolVersion >= 0x208 else {
            throw .damaged("boot protocol \(versionText) is older than 2.08")
        }
        guard end >= Self.smallestSize else { throw .damaged("its boot header is too short for a payload") }
        let (offset, length) = (UInt64(head.u32(0x248)), UInt64(head.u32(0x24C)))
        guard source.holds(kernelOffset + offset, length) else {
            throw .damaged(
                "a payload of \(length) bytes at \(kernelOffset) + \(offset) goes beyond its \(source.size) bytes"
            )
        }
        return kernelOffset + offset..<kernelOffset + offset + length
    }

    /// Where in the file the text is that tells release and build; nil if there is none.
    public var versionTextOffset: UInt64? {
        let offset = head.u16(0x20E)
        return offset == 0 ? nil : UInt64(offset) + Self.sectorSize
    }
}
