internal import ELFNotes

/// The parts of an ELF64 little-endian file that are looked at here. Every table is checked against the file's size
/// when it is read. (System V ABI, "ELF-64 Object File Format".)
struct ELFFile: Sendable {
    struct Segment: Sendable {
        let type: UInt32
        let offset: UInt64
        let physicalAddress: UInt64
        let fileSize: UInt64
        let memorySize: UInt64
        let alignment: UInt64
    }

    static let loadSegment: UInt32 = 1
    static let interpreterSegment: UInt32 = 3
    static let noteSegment: UInt32 = 4
    static let executable: UInt16 = 2
    static let x86: UInt16 = 62
    static let magic: [UInt8] = [0x7F, 0x45, 0x4C, 0x46]
    private static let headerSize = 64
    private static let programHeaderSize = 56
    private static let sectionHeaderSize = 64

    let reader: ByteReader
    let type: UInt16
    /// What the file is to the reader of an error message.
    let what: String
    let segments: [Segment]

    /// Checks the header and the segment table. A file without segments (a kernel module) is fine here.
    init(_ bytes: [UInt8], what: String) throws(GuestImagesError) {
        let reader = ByteReader(bytes: bytes)
        func fail(_ reason: String) -> GuestImagesError { .invalidELF(what: what, reason: reason) }
        guard reader.matches(Self.magic, at: 0) else { throw fail("it does not start with the ELF magic") }
        guard bytes.count >= Self.headerSize else { throw fail("it is cut off within its header") }
        guard bytes[4] == 2, bytes[5] == 1 else { throw fail("it is not a 64-bit little-endian file") }
        guard let type = reader.uint16(at: 16), let machine = reader.uint16(at: 18),
            let table = reader.uint64(at: 32), let entrySize = reader.uint16(at: 54),
            let count = reader.uint16(at: 56)
        else { throw fail("it is cut off within its header") }
        guard machine == Self.x86 else { throw fail("it is for machine \(machine), not for x86-64") }
        guard count == 0 || Int(entrySize) == Self.programHeaderSize else {
            throw fail("its segment headers have \(entrySize) bytes instead of \(Self.programHeaderSize)")
        }
        guard let range = reader.range(start: table, count: UInt64(count) * UInt64(Self.programHeaderSize))
        else {
            throw fail("its segment table lies outside the file")
        }
        var segments: [Segment] = []
        for index in 0..<Int(count) {
            let at = range.lowerBound + index * Self.programHeaderSize
            guard let type = reader.uint32(at: at), let offset = reader.uint64(at: at + 8),
                let address = reader.uint64(at: at + 24), let fileSize = reader.uint64(at: at + 32),
                let memorySize = reader.uint64(at: at + 40), let alignment = reader.uint64(at: at + 48)
            else { throw fail("its segment table is cut off") }
            // A kernel whose notes are damaged can still be entered by its header.
            guard type == Self.noteSegment || reader.range(start: offset, count: fileSize) != nil else {
                throw fail("segment \(index) lies outside the file")
            }
            segments.append(
                Segment(
                    type: type, offset: offset, physicalAddress: address, fileSize: fileSize,
                    memorySize: memorySize, alignment: alignment))
        }
        self.reader = reader
        self.type = type
        self.what = what
        self.segments = segments
    }

    /// Throws unless this is a static program whose loadable segments are sane and disjoint.
    func requireLoadable() throws(GuestImagesError) {
        func fail(_ reason: String) -> GuestImagesError { .invalidELF(what: what, reason: reason) }
        guard type == Self.executable else { throw fail("its type is \(type), not an executable (2)") }
        var ranges: [Range<UInt64>] = []
        for segment in segments where segment.type == Self.loadSegment {
            guard segment.fileSize <= segment.memorySize else {
                throw fail("a segment has more bytes in the file than in memory")
            }
            let (end, overflow) = segment.physicalAddress.addingReportingOverflow(segment.memorySize)
            guard !overflow else { throw fail("a segment ends beyond the address space") }
            ranges.append(segment.physicalAddress..<end)
        }
        guard !ranges.isEmpty else { throw fail("it has nothing to load") }
        ranges.sort { $0.lowerBound < $1.lowerBound }
        for (before, after) in zip(ranges, ranges.dropFirst()) where before.upperBound > after.lowerBound {
            throw fail("its segments overlap in memory")
        }
    }

    /// Whether the program needs a dynamic linker.
    var hasInterpreter: Bool {
        segments.contains { $0.type == Self.interpreterSegment }
    }

    /// The descriptor of the first note with that name (without its NUL) and type.
    func note(name: String, type wanted: UInt32) -> [UInt8]? {
        for segment in segments where segment.type == Self.noteSegment {
            guard let range = reader.range(start: segment.offset, count: segment.fileSize) else { continue }
            let bytes = Array(reader.bytes[range].prefix(ELFNotes.maximumSize))
            let search = ELFNotes.search(name: name, type: wanted, in: bytes, alignment: segment.alignment)
            if let found = search.descriptors.first { return found }
        }
        return nil
    }

    /// The bytes of the first section with that name; nil if there is none or it lies outside the file.
    func section(named name: String) -> [UInt8]? {
        guard let table = reader.uint64(at: 40), let entrySize = reader.uint16(at: 58),
            let count = reader.uint16(at: 60), let namesIndex = reader.uint16(at: 62),
            Int(entrySize) == Self.sectionHeaderSize, namesIndex < count,
            let range = reader.range(start: table, count: UInt64(count) * UInt64(Self.sectionHeaderSize)),
            let names = sectionRange(at: range.lowerBound + Int(namesIndex) * Self.sectionHeaderSize)
        else { return nil }
        let wanted = Array(name.utf8) + [0]
        for index in 0..<Int(count) {
            let header = range.lowerBound + index * Self.sectionHeaderSize
            guard let nameOffset = reader.uint32(at: header),
                let nameRange = reader.range(start: UInt64(names.lowerBound) + UInt64(nameOffset), count: 0),
                reader.matches(wanted, at: nameRange.lowerBound)
            else { continue }
            return sectionRange(at: header).map { Array(reader.bytes[$0]) }
        }
        return nil
    }

    private func sectionRange(at header: Int) -> Range<Int>? {
        guard let offset = reader.uint64(at: header + 24), let size = reader.uint64(at: header + 32) else {
            return nil
        }
        return reader.range(start: offset, count: size)
    }
}
