/// A 64-bit little-endian ELF file for x86-64: its header and program headers, checked against the file and each other
/// (System V ABI, "Object Files"; Linux's elf(5)).
public struct ELF64: Sendable {
    /// A program header.
    public struct Segment: Equatable, Sendable {
        public let type: UInt32
        public let offset: UInt64
        /// p_paddr, where a kernel is to be loaded.
        public let address: UInt64
        public let sizeInFile: UInt64
        public let sizeInMemory: UInt64
        public let alignment: UInt64
    }

    public static let magic: [UInt8] = [0x7F, 0x45, 0x4C, 0x46]
    /// PT_LOAD, PT_INTERP, PT_NOTE, PT_TLS.
    public static let (load, interpreter, note, threadStorage): (UInt32, UInt32, UInt32, UInt32) = (
        1, 3, 4, 7
    )
    /// ET_EXEC and ET_DYN.
    public static let (executable, dynamic): (UInt16, UInt16) = (2, 3)
    private static let machine: UInt16 = 62
    private static let headerSize = 64
    private static let programHeaderSize = 56
    private static let sectionHeaderSize = 64
    private static let maximumHeaders = 128

    /// e_type.
    public let type: UInt16
    public let entry: UInt64
    /// In the order of the file; none in an object file such as a kernel module.
    public let segments: [Segment]
    private let header: ByteReader

    /// Whether the bytes begin as an ELF file does.
    public static func isELF(_ head: ByteReader) -> Bool { head.matches(magic, at: 0) }

    /// Reads the headers.
    public init(_ source: ImageSource) throws(ImageFormatError) {
        guard Self.isELF(try source.head(Self.magic.count)) else { throw .damaged("not an ELF file") }
        let header = try source.part("ELF header", at: 0, count: Self.headerSize)
        guard header[4] == 2, header[5] == 1, header.u16(18) == Self.machine else {
            throw .damaged("not a 64-bit little-endian x86-64 ELF file")
        }
        let count = Int(header.u16(56))
        guard count <= Self.maximumHeaders, count == 0 || header.u16(54) == Self.programHeaderSize else {
            throw .damaged(
                "\(count) program headers of \(header.u16(54)) bytes; expected 1 to \(Self.maximumHeaders) of \(Self.programHeaderSize)"
            )
        }
        let table = try source.part(
            "program headers", at: count == 0 ? 0 : header.u64(32), count: count * Self.programHeaderSize)
        segments = (0..<count).map { index in
            let at = index * Self.programHeaderSize
            return Segment(
                type: table.u32(at), offset: table.u64(at + 8), address: table.u64(at + 24),
                sizeInFile: table.u64(at + 32), sizeInMemory: table.u64(at + 40),
                alignment: table.u64(at + 48))
        }
        type = header.u16(16)
        entry = header.u64(24)
        self.header = header
    }

    /// Whether it asks for a dynamic linker.
    public var hasInterpreter: Bool { segments.contains { $0.type == Self.interpreter } }
    public var hasThreadStorage: Bool { segments.contains { $0.type == Self.threadStorage } }

    /// What is to be loaded, by address: at least one, each within file and address space, none over another.
    public func loadable(from source: ImageSource) throws(ImageFormatError) -> [Segment] {
        guard type == Self.executable || type == Self.dynamic else {
            throw .damaged("not an executable (ELF type \(type))")
        }
        guard !segments.isEmpty else {
            throw .damaged("0 program headers of \(header.u16(54)) bytes; expected 1 to 128 of 56")
        }
        var found = segments.filter { $0.type == Self.load && $0.sizeInMemory > 0 }
        for segment in found {
            guard segment.sizeInFile <= segment.sizeInMemory,
                !segment.address.addingReportingOverflow(segment.sizeInMemory).overflow
            else {
                throw .damaged(
                    "a segment of \(segment.sizeInFile) bytes in \(segment.sizeInMemory) at 0x\(hex(segment.address))"
                )
            }
            guard source.holds(segment.offset, segment.sizeInFile) else {
                throw .damaged(
                    "truncated: a segment needs bytes up to \(segment.offset) + \(segment.sizeInFile), the file has \(source.size)"
                )
            }
        }
        found.sort { $0.address < $1.address }
        for (left, right) in zip(found, found.dropFirst())
        where left.address + left.sizeInMemory > right.address {
            throw .damaged("segments at 0x\(hex(left.address)) and 0x\(hex(right.address)) overlap")
        }
        guard !found.isEmpty else { throw .damaged("nothing to load: no PT_LOAD segment") }
        return found
    }

    /// Looks for notes in all note segments, each of which may be damaged without harm to the rest of the file.
    /// - Parameter name: without its NUL.
    public func notes(named name: String, type: UInt32, in source: ImageSource) throws(ImageFormatError)
        -> ELFNotes.Search
    {
        var result = ELFNotes.Search()
        for segment in segments where segment.type == Self.note {
            let size = segment.sizeInFile
            guard source.holds(segment.offset, size) else {
                result.damage =
                    "its notes should be \(size) bytes at \(segment.offset), but the file has \(source.size)"
                continue
            }
            let count = Int(min(size, UInt64(ELFNotes.maximumSize)))
            if count < size {
                result.damage = "notes of \(size) bytes, of which the first \(count) were searched"
            }
            let bytes = try source.part("notes", at: segment.offset, count: count).bytes
            result.add(ELFNotes.search(name: name, type: type, in: bytes, alignment: segment.alignment))
        }
        return result
    }

    /// The bytes of the first section of that name; nil if there is none, or not all of it is in the file.
    public func section(named name: String, in source: ImageSource) throws(ImageFormatError) -> [UInt8]? {
        let count = Int(header.u16(60))
        let namesIndex = Int(header.u16(62))
        guard Int(header.u16(58)) == Self.sectionHeaderSize, namesIndex < count,
            source.holds(header.u64(40), UInt64(count * Self.sectionHeaderSize))
        else { return nil }
        let table = try source.part(
            "section headers", at: header.u64(40), count: count * Self.sectionHeaderSize)
        guard let names = try Self.section(namesIndex, of: table, source) else { return nil }
        let wanted = Array(name.utf8) + [0]
        for index in 0..<count {
            let place = Int(table.u32(index * Self.sectionHeaderSize))
            guard names.matches(wanted, at: place) else { continue }
            return try Self.section(index, of: table, source)?.bytes
        }
        return nil
    }

    private static func section(_ index: Int, of table: ByteReader, _ source: ImageSource)
        throws(ImageFormatError) -> ByteReader?
    {
        let (offset, size) = (
            table.u64(index * sectionHeaderSize + 24), table.u64(index * sectionHeaderSize + 32)
        )
        guard source.holds(offset, size), let count = Int(exactly: size) else { return nil }
        return try source.part("section", at: offset, count: count)
    }
}
