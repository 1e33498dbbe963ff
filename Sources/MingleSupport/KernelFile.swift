import CLinux
internal import ELFNotes

/// What the headers of a kernel or payload file say about it. The file is not trusted: every field is bounded.
public struct KernelFile: Equatable, Sendable {
    /// How the file can be entered.
    public enum Kind: Equatable, Sendable {
        /// A compressed Linux kernel (the x86 boot protocol's "HdrS" header).
        case bzImage
        /// An uncompressed Linux kernel; `hasPVH` if it has a note for the PVH entry that can be used.
        case vmlinux(hasPVH: Bool)
        /// A payload guest: an ELF file with the note of the payload ABI (guests/README.md).
        case payload
    }

    public let kind: Kind
    /// The least guest memory that the kernel itself occupies, in bytes.
    public let footprintBytes: UInt64
    /// Why a vmlinux has no PVH entry.
    private var pvhProblem: String?
    /// Where the lowest segment of an ELF file is to be loaded.
    private var lowestAddress: UInt64?

    private static let maximumProgramHeaders = 128
    private static let xenPhysicalEntryNote: UInt32 = 18
    /// Below it are the tables that a guest is entered with.
    private static let lowestKernelAddress: UInt64 = 1 << 20

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
        var segments: [(address: UInt64, size: UInt64)] = []
        var (pvh, payload) = (ELFNotes.Search(), ELFNotes.Search())
        var (isProgram, hasThreadStorage) = (false, false)
        for index in 0..<count {
            let header = Array(table[index * 56..<(index + 1) * 56])
            switch HeaderReader.number(header, at: 0, as: UInt32.self) {
            case 1:
                let size = HeaderReader.number(header, at: 40, as: UInt64.self)
                footprint = footprint.addingReportingOverflow(size).overflow ? .max : footprint + size
                if size > 0 { segments.append((HeaderReader.number(header, at: 24, as: UInt64.self), size)) }
            // A dynamic linker is asked for by programs only, thread-local storage by some kernels.
            case 3: isProgram = true
            case 7: hasThreadStorage = true
            case 4:
                let (bytes, damage) = try notes(header, reader)
                if let damage { (pvh.damage, payload.damage) = (damage, damage) }
                let alignment = HeaderReader.number(header, at: 48, as: UInt64.self)
                pvh.add(
                    ELFNotes.search(
                        name: "Xen", type: xenPhysicalEntryNote, in: bytes, alignment: alignment))
                payload.add(ELFNotes.search(name: "Mingle", type: 1, in: bytes, alignment: alignment))
            default: continue
            }
        }
        let entries = pvh.descriptors.filter { $0.count >= 4 }.map {
            UInt64(HeaderReader.number($0, at: 0, as: UInt32.self))
        }
        let hasPVH = entries.contains { entry in
            segments.contains { $0.address <= entry && entry - $0.address < $0.size }
        }
        if isProgram || hasThreadStorage && !hasPVH && payload.descriptors.isEmpty {
            throw reader.refusal(
                "a program for an operating system, not a kernel: name a vmlinux, a bzImage or a payload")
        }
        let kind = payload.descriptors.isEmpty ? Kind.vmlinux(hasPVH: hasPVH) : .payload
        var file = KernelFile(kind: kind, footprintBytes: footprint)
        file.lowestAddress = segments.map(\.address).min()
        if !hasPVH {
            file.pvhProblem =
                entries.first.map { "its PVH note names 0x\(String($0, radix: 16)), which is in no segment" }
                ?? "it has no PVH note" + (pvh.damage.map { " (\($0))" } ?? "")
        }
        return file
    }

    /// The bytes of a note segment, as far as they are searched, and what is wrong with it.
    private static func notes(_ header: [UInt8], _ reader: HeaderReader) throws(SupportError)
        -> ([UInt8], damage: String?)
    {
        let size = HeaderReader.number(header, at: 32, as: UInt64.self)
        let wanted = Int(min(size, UInt64(ELFNotes.maximumSize)))
        // A place that no file has is read as its end.
        let place = Int(exactly: HeaderReader.number(header, at: 8, as: UInt64.self)) ?? .max - wanted
        let bytes = try reader.bytes(at: min(place, .max - wanted), count: wanted)
        if bytes.count < wanted { return ([], "its notes lie beyond the end of the file") }
        return (bytes, wanted < size ? "notes of \(size) bytes" : nil)
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
            let why = boot == .pvh ? pvhProblem.map { ", since \($0)" } ?? "" : ""
            throw .unusableImage(
                path: path, reason: "cannot be booted by --boot \(boot.rawValue)\(why): use one of \(names)")
        }
        if let lowestAddress, lowestAddress < Self.lowestKernelAddress {
            throw .unusableImage(
                path: path,
                reason: "wants to be loaded below 1 MiB, which is neither a kernel's place nor a payload's: "
                    + "name a vmlinux, a bzImage or a payload")
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
