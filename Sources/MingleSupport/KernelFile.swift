import CLinux

/// What the headers of a kernel or payload file say about it. The file is not trusted: every field is bounded.
public struct KernelFile: Equatable, Sendable {
    /// How the file can be entered.
    public enum Kind: Equatable, Sendable {
        /// A compressed Linux kernel (the x86 boot protocol's "HdrS" header).
        case bzImage
        /// An uncompressed Linux kernel; `hasPVH` if it has the note for the PVH entry.
        case vmlinux(hasPVH: Bool)
        /// A payload guest: an ELF file with the note of the payload ABI (guests/README.md).
        case payload
    }

    public let kind: Kind
    /// The least guest memory that the kernel itself occupies, in bytes.
    public let footprintBytes: UInt64

    private static let maximumProgramHeaders = 128
    private static let maximumNoteBytes = 64 << 10
    private static let xenPhysicalEntryNote: UInt32 = 18

    /// Reads the headers of the file at `path`.
    public init(path: String) throws(SupportError) {
        let descriptor: OwnedDescriptor
        switch SystemCall.open(path, flags: O_RDONLY | O_NONBLOCK) {
        case .success(let number): descriptor = OwnedDescriptor(taking: number)
        case .failure(let error): throw .systemCall(operation: "open kernel", subject: path, code: error.code)
        }
        guard case .success(let status) = SystemCall.status(ofDescriptor: descriptor.number),
            status.isRegularFile
        else { throw .unusableImage(path: path, reason: "not a regular file: name a kernel or payload file") }
        let reader = HeaderReader(descriptor: descriptor.number, path: path)
        let head = try reader.bytes(at: 0, count: 0x264)
        if head.prefix(4) == [0x7f, 0x45, 0x4c, 0x46] {
            self = try Self.elf(head, reader: reader)
        } else if head.count == 0x264, head[0x202..<0x206] == [0x48, 0x64, 0x72, 0x53] {
            guard HeaderReader.number(head, at: 0x206, as: UInt16.self) >= 0x20c else {
                throw .unusableImage(
                    path: path, reason: "a bzImage older than boot protocol 2.12: use a newer kernel")
            }
            self.init(
                kind: .bzImage, footprintBytes: UInt64(HeaderReader.number(head, at: 0x260, as: UInt32.self)))
        } else {
            throw .unusableImage(
                path: path,
                reason: "neither an ELF file nor a bzImage: name a vmlinux, a bzImage or a payload")
        }
    }

    private init(kind: Kind, footprintBytes: UInt64) {
        self.kind = kind
        self.footprintBytes = footprintBytes
    }

    /// ELF-64, System V gABI chapters 4 and 5.
    private static func elf(_ head: [UInt8], reader: HeaderReader) throws(SupportError) -> KernelFile {
        guard head.count >= 64, head[4] == 2, head[5] == 1,
            HeaderReader.number(head, at: 18, as: UInt16.self) == UInt16(EM_X86_64_MACHINE)
        else { throw reader.refusal("an ELF file, but not for 64-bit x86: name an x86-64 kernel") }
        let count = Int(HeaderReader.number(head, at: 56, as: UInt16.self))
        guard HeaderReader.number(head, at: 54, as: UInt16.self) == 56,
            (1...maximumProgramHeaders).contains(count),
            let offset = Int(exactly: HeaderReader.number(head, at: 32, as: UInt64.self))
        else { throw reader.refusal("an ELF file without usable program headers: name a linked kernel") }
        let table = try reader.bytes(at: offset, count: count * 56)
        guard table.count == count * 56 else { throw reader.refusal("an ELF file that is cut short") }
        var footprint: UInt64 = 0
        var notes = Notes()
        for index in 0..<count {
            let header = Array(table[index * 56..<(index + 1) * 56])
            switch HeaderReader.number(header, at: 0, as: UInt32.self) {
            case 1:
                let size = HeaderReader.number(header, at: 40, as: UInt64.self)
                footprint = footprint.addingReportingOverflow(size).overflow ? .max : footprint + size
            case 4:
                let size = HeaderReader.number(header, at: 32, as: UInt64.self)
                guard let place = Int(exactly: HeaderReader.number(header, at: 8, as: UInt64.self)) else {
                    continue
                }
                notes.scan(try reader.bytes(at: place, count: Int(min(size, UInt64(maximumNoteBytes)))))
            default: continue
            }
        }
        let kind = notes.isPayload ? Kind.payload : .vmlinux(hasPVH: notes.hasPVH)
        return KernelFile(kind: kind, footprintBytes: footprint)
    }

    /// The notes that matter, in 4-byte aligned note segments.
    private struct Notes {
        var isPayload = false
        var hasPVH = false

        mutating func scan(_ bytes: [UInt8]) {
            var place = 0
            while place + 12 <= bytes.count {
                let nameSize = Int(HeaderReader.number(bytes, at: place, as: UInt32.self))
                let descriptorSize = Int(HeaderReader.number(bytes, at: place + 4, as: UInt32.self))
                let type = HeaderReader.number(bytes, at: place + 8, as: UInt32.self)
                let nameEnd = place + 12 + nameSize
                guard nameEnd <= bytes.count else { return }
                let name = Array(bytes[place + 12..<nameEnd])
                if name == Array("Mingle\0".utf8), type == 1 { isPayload = true }
                if name == Array("Xen\0".utf8), type == KernelFile.xenPhysicalEntryNote { hasPVH = true }
                place += 12 + (nameSize + 3) & ~3 + (descriptorSize + 3) & ~3
            }
        }
    }

    /// Refuses a way of booting (the value of `--boot`) that this file cannot be booted by.
    public func check(boot: BootProtocol, path: String) throws(SupportError) {
        let possible: Set<BootProtocol>
        switch kind {
        case .bzImage: possible = [.auto, .bzimage, .linux64]
        case .vmlinux(let hasPVH): possible = hasPVH ? [.auto, .pvh, .linux64] : [.auto, .linux64]
        case .payload: possible = [.auto, .payload]
        }
        guard possible.contains(boot) else {
            let names = possible.map(\.rawValue).sorted().joined(separator: ", ")
            throw .unusableImage(
                path: path, reason: "cannot be booted by --boot \(boot.rawValue): use one of \(names)")
        }
    }
}

/// The values of `--boot`.
public enum BootProtocol: String, CaseIterable, Sendable {
    case auto, pvh, linux64, bzimage, payload
}

private let EM_X86_64_MACHINE = 62

/// Reads pieces of a file that may be too short.
private struct HeaderReader {
    let descriptor: Int32
    let path: String

    func bytes(at offset: Int, count: Int) throws(SupportError) -> [UInt8] {
        switch SystemCall.read(descriptor, count: count, at: offset) {
        case .success(let bytes): return bytes
        case .failure(let error): throw .systemCall(operation: "read", subject: path, code: error.code)
        }
    }

    func refusal(_ reason: String) -> SupportError { .unusableImage(path: path, reason: reason) }

    /// A little-endian number; the caller made sure that it lies within the bytes.
    static func number<Number: FixedWidthInteger>(_ bytes: [UInt8], at offset: Int, as type: Number.Type)
        -> Number
    {
        var value: Number = 0
        for index in (0..<MemoryLayout<Number>.size).reversed() {
            value = value << 8 | Number(truncatingIfNeeded: bytes[offset + index])
        }
        return value
    }
}
