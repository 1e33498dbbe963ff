internal import GuestMemory
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
    /// 32-bit entry point of the PVH boot protocol (note "Xen", type 18).
    let pvhEntry: UInt32?
    /// ABI version of a payload (note "Mingle", type 1).
    let payloadVersion: UInt32?

    /// End of the last segment.
    var end: GuestAddress { segments.last.map { $0.range.end } ?? GuestAddress(0) }

    static let magic: [UInt8] = [0x7F, 0x45, 0x4C, 0x46]
    private static let maximumHeaders = 128
    /// Bytes of all notes together; kernels have some hundred.
    private static let maximumNotes: UInt64 = 1 << 20

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
        let table = try reader.bytes(at: header.u64(32), count: count * 56, what: "program headers")
        entry = header.u64(24)
        var segments: [Segment] = []
        var notes: [ELFNote] = []
        var noteSize: UInt64 = 0
        for index in 0..<count {
            let program = ByteSlice(table.bytes, base: index * 56)
            let (type, offset, size) = (program.u32(0), program.u64(8), program.u64(32))
            if type == 1, program.u64(40) > 0 {
                segments.append(try Self.segment(program, reader))
            } else if type == 4 {
                guard size <= Self.maximumNotes - noteSize else {
                    throw reader.bad("notes of \(size) bytes and more")
                }
                noteSize += size
                notes += try ELFNote.parse(
                    reader.bytes(at: offset, count: Int(size), what: "notes").bytes, reader)
            }
        }
        segments.sort { $0.range.start < $1.range.start }
        for (left, right) in zip(segments, segments.dropFirst()) where left.range.overlaps(right.range) {
            throw reader.bad("segments \(left.range) and \(right.range) overlap")
        }
        guard !segments.isEmpty else { throw reader.bad("nothing to load: no PT_LOAD segment") }
        self.segments = segments
        pvhEntry = notes.first { $0.name == "Xen" && $0.type == 18 }.flatMap { $0.integer() }
        payloadVersion = try notes.first { $0.name == "Mingle" && $0.type == 1 }.map {
            note throws(HypervisorError) in
            guard note.descriptor.count == 8, ByteSlice(note.descriptor).u32(4) == 0 else {
                throw reader.bad("its Mingle note is not of 8 bytes with flags 0")
            }
            return ByteSlice(note.descriptor).u32(0)
        }
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
            guard segment.range.start >= Layout.highMemoryBase, memory.isRAM(segment.range) else {
                throw .badImage(
                    "\(name): its segment \(segment.range) does not fit the guest's \(memory.sizeInBytes >> 20) MiB"
                        + " above 1 MiB: give it more --memory")
            }
            try memoryAccess { () throws(GuestMemoryError) in
                try memory.readFile(
                    file, at: segment.fileOffset, count: segment.sizeInFile, to: segment.range.start)
            }
        }
    }
}

/// One note: name, type, descriptor.
struct ELFNote: Equatable {
    let name: String
    let type: UInt32
    let descriptor: [UInt8]

    /// The descriptor's first 32 bits, little endian.
    func integer() -> UInt32? { descriptor.count >= 4 ? ByteSlice(descriptor).u32(0) : nil }

    static func parse(_ bytes: [UInt8], _ reader: borrowing ImageReader) throws(HypervisorError) -> [ELFNote]
    {
        var notes: [ELFNote] = []
        var position = 0
        while bytes.count - position >= 12 {
            let head = ByteSlice(bytes, base: position)
            let (nameSize, size, type) = (Int(head.u32(0)), Int(head.u32(4)), head.u32(8))
            let nameStart = position + 12
            let start = nameStart + (nameSize + 3) & ~3
            guard nameSize <= bytes.count, size <= bytes.count, start + size <= bytes.count else {
                throw reader.bad("a note reaches beyond its segment")
            }
            let name = bytes[nameStart..<nameStart + nameSize].prefix { $0 != 0 }
            notes.append(
                ELFNote(
                    name: String(decoding: name, as: UTF8.self), type: type,
                    descriptor: Array(bytes[start..<start + size])))
            position = start + (size + 3) & ~3
        }
        return notes
    }
}
