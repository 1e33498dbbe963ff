internal import GuestMemory
internal import ImageFormats
internal import LinuxHost

/// A kernel or payload as an ELF file, with what a loader needs of it.
struct ELFImage {
    struct Segment: Equatable {
        let fileOffset: UInt64
        let sizeInFile: UInt64
        let range: GuestRange
    }

    let entry: UInt64
    /// PT_LOAD segments of some size, by address.
    let segments: [Segment]
    let notes: KernelNotes
    private let name: String

    /// End of the last segment.
    var end: GuestAddress { segments.last.map { $0.range.end } ?? GuestAddress(0) }

    /// - Parameters: the file, which stays open; `name` for messages.
    init(_ file: borrowing OwnedDescriptor, name: String) throws(HypervisorError) {
        let source = try imageSource(file, name)
        self.name = name
        (entry, segments, notes) = try imageFormat(name) { () throws(ImageFormatError) in
            let elf = try ELF64(source)
            if elf.hasInterpreter { throw .damaged("a program for an operating system, not a kernel") }
            let segments = try elf.loadable(from: source).map { segment throws(ImageFormatError) in
                let start = GuestAddress(segment.address)
                guard let range = GuestRange(start: start, sizeInBytes: segment.sizeInMemory) else {
                    throw .damaged("a segment of \(segment.sizeInMemory) bytes at \(start)")
                }
                return Segment(fileOffset: segment.offset, sizeInFile: segment.sizeInFile, range: range)
            }
            return (elf.entry, segments, try KernelNotes(of: elf, in: source))
        }
    }

    /// ABI version of a payload.
    /// - Throws: `badImage` if it is none.
    func payloadVersion() throws(HypervisorError) -> UInt32 {
        try imageFormat(name) { () throws(ImageFormatError) in try notes.payloadVersion() }
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
