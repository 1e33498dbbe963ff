internal import ELFNotes
internal import GuestMemory
internal import LinuxHost
internal import Glibc

/// A static ELF64 file for x86-64, as far as a loader needs it. Files are hostile: every number is checked against the
/// file and against the others (System V ABI, "Object Files"; Linux's elf(5)).
struct ELFImage {
    struct Segment: Equatable {
        let fileOffset: UInt64
        let sizeInFile: UInt64
        let range: GuestRange
    }

    let entry: UInt64
    /// PT_LOAD segments of some size, by address.
    let segments: [Segment]
    /// The notes of the PVH boot protocol ("Xen", type 18) and of payloads ("Mingle", type 1).
    private let pvhNotes: ELFNotes.Search
    private let payloadNotes: ELFNotes.Search
    private let name: String

    /// End of the last segment.
    var end: GuestAddress { segments.last.map { $0.range.end } ?? GuestAddress(0) }

    static let magic: [UInt8] = [0x7F, 0x45, 0x4C, 0x46]
    private static let maximumHeaders = 128
    private static let programHeaderSize = 56

    /// - Parameters: the file and its size; `name` for messages.
    init(_ file: borrowing OwnedDescriptor, name: String) throws(HypervisorError) {
        let reader = try ImageReader(file, name: name)
        let header = try reader.bytes(at: 0, count: 64, what: "ELF header")
        guard Array(header[0..<4]) == Self.magic else { throw reader.bad("not an ELF file") }
        guard header[4] == 2, header[5] == 1, header.u16(18) == 62 else {
            throw reader.bad("not a 64-bit little-endian x86-64 ELF file")
        }
        guard header.u16(16) == 2 || header.u16(16) == 3 else {
            throw reader.bad("not an executable (ELF type \(header.u16(16)))")
        }
        let count = Int(header.u16(56))
        guard count > 0, count <= Self.maximumHeaders, header.u16(54) == 56 else {
            throw reader.bad("\(count) program headers of \(header.u16(54)) bytes; expected 1 to 128 of 56")
        }
        let table = try reader.bytes(
            at: header.u64(32), count: count * Self.programHeaderSize, what: "program headers")
        entry = header.u64(24)
        var segments: [Segment] = []
        var (pvhNotes, payloadNotes) = (ELFNotes.Search(), ELFNotes.Search())
        for index in 0..<count {
            let program = ByteSlice(table.bytes, base: index * Self.programHeaderSize)
            switch program.u32(0) {
            case 1 where program.u64(40) > 0: segments.append(try Self.segment(program, reader))
            case 3: throw reader.bad("a program for an operating system, not a kernel")
            case 4:
                let (bytes, damage) = try Self.notes(program, reader)
                if let damage {
                    pvhNotes.damage = damage
                    payloadNotes.damage = damage
                }
                pvhNotes.add(
                    ELFNotes.search(name: "Xen", type: 18, in: bytes, alignment: program.u64(48)))
                payloadNotes.add(
                    ELFNotes.search(name: "Mingle", type: 1, in: bytes, alignment: program.u64(48)))
            default: continue
            }
        }
        segments.sort { $0.range.start < $1.range.start }
        for (left, right) in zip(segments, segments.dropFirst()) where left.range.overlaps(right.range) {
            throw reader.bad("segments \(left.range) and \(right.range) overlap")
        }
        guard !segments.isEmpty else { throw reader.bad("nothing to load: no PT_LOAD segment") }
        self.segments = segments
        self.pvhNotes = pvhNotes
        self.payloadNotes = payloadNotes
        self.name = name
    }

    /// The bytes of a note segment, as far as they are searched, and what is wrong with it.
    private static func notes(_ program: ByteSlice, _ reader: borrowing ImageReader) throws(HypervisorError)
        -> ([UInt8], damage: String?)
    {
        let (offset, size) = (program.u64(8), program.u64(32))
        guard offset <= reader.size, size <= reader.size - offset else {
            return ([], "its notes should be \(size) bytes at \(offset), but the file has \(reader.size)")
        }
        let count = min(Int(size), ELFNotes.maximumSize)
        let bytes = try reader.bytes(at: offset, count: count, what: "notes").bytes
        return (
            bytes, count < size ? "notes of \(size) bytes, of which the first \(count) were searched" : nil
        )
    }

    /// 32-bit entry point of the PVH boot protocol: nil if no note names a loaded address.
    var pvhEntry: UInt32? {
        pvhNotes.descriptors.lazy.compactMap(Self.integer).first { contains(UInt64($0)) }
    }

    /// Why there is no ``pvhEntry``.
    var pvhProblem: String {
        if let address = pvhNotes.descriptors.lazy.compactMap(Self.integer).first {
            return "its PVH note names the entry point 0x\(hex(UInt64(address))), which is in no segment"
        }
        if !pvhNotes.descriptors.isEmpty { return "its PVH note has less than 4 bytes" }
        return "has no PVH note" + (pvhNotes.damage.map { " (\($0))" } ?? "")
    }

    /// Whether it says of itself that it is a payload.
    var isPayload: Bool { !payloadNotes.descriptors.isEmpty }

    /// ABI version of a payload.
    /// - Throws: `badImage` if it is none.
    func payloadVersion() throws(HypervisorError) -> UInt32 {
        guard let note = payloadNotes.descriptors.first else {
            throw .badImage(
                "\(name): not a payload: it has no Mingle note (see guests/README.md)"
                    + (payloadNotes.damage.map { "; \($0)" } ?? ""))
        }
        guard note.count == 8, ByteSlice(note).u32(4) == 0 else {
            throw .badImage("\(name): its Mingle note is not of 8 bytes with flags 0")
        }
        return ByteSlice(note).u32(0)
    }

    /// The descriptor's first 32 bits, little endian.
    private static func integer(_ descriptor: [UInt8]) -> UInt32? {
        descriptor.count >= 4 ? ByteSlice(descriptor).u32(0) : nil
    }

    private static func segment(_ program: ByteSlice, _ reader: borrowing ImageReader) throws(HypervisorError)
        -> Segment
    {
        let (offset, address) = (program.u64(8), program.u64(24))
        let (sizeInFile, sizeInMemory) = (program.u64(32), program.u64(40))
        guard sizeInFile <= sizeInMemory,
            let range = GuestRange(start: GuestAddress(address), sizeInBytes: sizeInMemory)
        else { throw reader.bad("a segment of \(sizeInFile) bytes in \(sizeInMemory) at 0x\(hex(address))") }
        guard offset <= reader.size, sizeInFile <= reader.size - offset else {
            throw reader.bad(
                "truncated: a segment needs bytes up to \(offset) + \(sizeInFile), the file has \(reader.size)"
            )
        }
        return Segment(fileOffset: offset, sizeInFile: sizeInFile, range: range)
    }

    /// Whether an address that a vCPU is to start at was loaded.
    func contains(_ address: UInt64) -> Bool {
        segments.contains { $0.range.start.value <= address && address < $0.range.end.value }
    }

    /// Reads all segments into guest memory, each straight from the file.
    func load(
        _ file: borrowing OwnedDescriptor, name: String, into memory: GuestMemory
    ) throws(HypervisorError) {
        for segment in segments {
            guard segment.range.start >= Layout.highMemoryBase else {
                throw .badImage(
                    "\(name): its segment \(segment.range) is not above 1 MiB, where kernels and payloads are: it is neither"
                )
            }
            guard memory.isRAM(segment.range) else {
                let advice =
                    segment.range.end <= Layout.holeStart
                    ? "give it more --memory" : "it would have to lie below 3 GiB, whatever --memory is"
                throw .badImage(
                    "\(name): its segment \(segment.range) does not fit the guest's \(memory.sizeInBytes >> 20) MiB:"
                        + " \(advice)")
            }
            try memoryAccess { () throws(GuestMemoryError) in
                try memory.readFile(
                    file, at: segment.fileOffset, count: segment.sizeInFile, to: segment.range.start)
            }
        }
    }
}
