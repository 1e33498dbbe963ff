/// The notes by which an ELF file says how it is entered: the PVH boot protocol's ("Xen", type 18: Xen's
/// public/elfnote.h, XEN_ELFNOTE_PHYS32_ENTRY) and a payload's ("Mingle", type 1: guests/README.md).
public struct KernelNotes: Sendable {
    private let pvh: ELFNotes.Search
    private let payload: ELFNotes.Search
    private let loaded: [ELF64.Segment]

    public init(of file: ELF64, in source: ImageSource) throws(ImageFormatError) {
        pvh = try file.notes(named: "Xen", type: 18, in: source)
        payload = try file.notes(named: "Mingle", type: 1, in: source)
        loaded = file.segments.filter { $0.type == ELF64.load }
    }

    /// 32-bit entry point of the PVH boot protocol: nil if no note names a loaded address.
    public var pvhEntry: UInt32? {
        pvh.descriptors.lazy.compactMap(Self.integer).first { entry in
            loaded.contains { $0.address <= entry && UInt64(entry) - $0.address < $0.sizeInMemory }
        }
    }

    /// Why there is no ``pvhEntry``: to stand behind the file's name.
    public var pvhProblem: String {
        if let address = pvh.descriptors.lazy.compactMap(Self.integer).first {
            return "its PVH note names the entry point 0x\(hex(UInt64(address))), which is in no segment"
        }
        if !pvh.descriptors.isEmpty { return "its PVH note has less than 4 bytes" }
        return "it has no PVH note" + (pvh.damage.map { " (\($0))" } ?? "")
    }

    /// Whether it says of itself that it is a payload.
    public var isPayload: Bool { !payload.descriptors.isEmpty }

    /// ABI version of a payload.
    /// - Throws: `damaged` if it is none.
    public func payloadVersion() throws(ImageFormatError) -> UInt32 {
        guard let note = payload.descriptors.first.map(ByteReader.init(bytes:)) else {
            throw .damaged(
                "not a payload: it has no Mingle note (see guests/README.md)"
                    + (payload.damage.map { "; \($0)" } ?? ""))
        }
        guard note.bytes.count == 8, note.u32(4) == 0 else {
            throw .damaged("its Mingle note is not of 8 bytes with flags 0")
        }
        return note.u32(0)
    }

    /// The descriptor's first 32 bits, little endian.
    private static func integer(_ descriptor: [UInt8]) -> UInt32? {
        ByteReader(bytes: descriptor).uint32(at: 0)
    }
}
