/// Makes kernels and payloads that are right, so that tests can make them wrong.
struct ELFFile {
    struct Segment {
        var address: UInt64
        var bytes: [UInt8]
        var sizeInMemory: UInt64?
        /// Overrides of what the program header says.
        var fileOffset: UInt64?
        var sizeInFile: UInt64?
    }
    struct Note {
        var name: String
        var type: UInt32
        var descriptor: [UInt8]
    }
    var entry: UInt64 = 0x20_0000
    var segments = [Segment(address: 0x20_0000, bytes: [0xF4, 1, 2, 3])]
    var notes: [Note] = []
    var rawNotes: [UInt8]?

    static func payload() -> ELFFile {
        ELFFile(notes: [Note(name: "Mingle", type: 1, descriptor: [1, 0, 0, 0, 0, 0, 0, 0])])
    }
    static func pvh(entry: UInt64 = 0x20_0000) -> ELFFile {
        ELFFile(notes: [Note(name: "Xen", type: 18, descriptor: littleEndian(entry, 8))])
    }

    static func bytes(of notes: [Note]) -> [UInt8] {
        notes.flatMap { note -> [UInt8] in
            let name = Array(note.name.utf8) + [0]
            func padded(_ bytes: [UInt8]) -> [UInt8] {
                bytes + [UInt8](repeating: 0, count: (4 - bytes.count % 4) % 4)
            }
            return littleEndian(UInt64(name.count), 4) + littleEndian(UInt64(note.descriptor.count), 4)
                + littleEndian(UInt64(note.type), 4) + padded(name) + padded(note.descriptor)
        }
    }

    var bytes: [UInt8] {
        let noteBytes = rawNotes ?? Self.bytes(of: notes)
        let headerCount = segments.count + (noteBytes.isEmpty ? 0 : 1)
        var header: [UInt8] = [0x7F, 0x45, 0x4C, 0x46, 2, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0]
        header += littleEndian(2, 2) + littleEndian(62, 2) + littleEndian(1, 4)
        header += littleEndian(entry, 8) + littleEndian(64, 8) + littleEndian(0, 8)
        header += littleEndian(0, 4) + littleEndian(64, 2) + littleEndian(56, 2)
        header +=
            littleEndian(UInt64(headerCount), 2) + littleEndian(64, 2) + littleEndian(0, 2)
            + littleEndian(0, 2)
        func program(type: UInt64, offset: UInt64, address: UInt64, inFile: UInt64, inMemory: UInt64)
            -> [UInt8]
        {
            littleEndian(type, 4) + littleEndian(5, 4) + littleEndian(offset, 8) + littleEndian(address, 8)
                + littleEndian(address, 8) + littleEndian(inFile, 8) + littleEndian(inMemory, 8)
                + littleEndian(1, 8)
        }
        var (table, body): ([UInt8], [UInt8]) = ([], [])
        let start = UInt64(64 + 56 * headerCount)
        for segment in segments {
            let inFile = segment.sizeInFile ?? UInt64(segment.bytes.count)
            table += program(
                type: 1, offset: segment.fileOffset ?? start + UInt64(body.count), address: segment.address,
                inFile: inFile, inMemory: segment.sizeInMemory ?? inFile)
            body += segment.bytes
        }
        if !noteBytes.isEmpty {
            let size = UInt64(noteBytes.count)
            table += program(
                type: 4, offset: start + UInt64(body.count), address: 0, inFile: size, inMemory: size)
            body += noteBytes
        }
        return header + table + body
    }
}

/// A bzImage: one setup sector, a kernel part of 8 KiB.
struct BzImageFile {
    var preferredAddress: UInt64 = 0x100_0000
    var sizeInMemory: UInt64 = 0x40_0000
    var initrdLimit: UInt64 = 0x7FFF_FFFF
    var kernel = (0..<8192).map { UInt8(truncatingIfNeeded: $0 &* 7) }

    static let setupSize = 1024
    var bytes: [UInt8] {
        var header = [UInt8](repeating: 0, count: Self.setupSize)
        func put(_ value: UInt64, _ width: Int, _ offset: Int) {
            header.replaceSubrange(offset..<offset + width, with: littleEndian(value, width))
        }
        put(1, 1, 0x1F1)  // setup_sects
        put(0xAA55, 2, 0x1FE)
        put(0x6A, 1, 0x201)  // the header ends at 0x202 + this
        put(0x5372_6448, 4, 0x202)
        put(0x020F, 2, 0x206)
        put(1, 1, 0x211)  // LOADED_HIGH
        put(initrdLimit, 4, 0x22C)
        put(0x20_0000, 4, 0x230)
        put(1, 1, 0x234)
        put(1, 2, 0x236)  // XLF_KERNEL_64
        put(2047, 4, 0x238)
        put(preferredAddress, 8, 0x258)
        put(sizeInMemory, 4, 0x260)
        return header + kernel
    }
}
