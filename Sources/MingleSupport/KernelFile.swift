internal import LinuxHost
import CLinux
public import ImageFormats

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

    /// Below it are the tables that a guest is entered with.
    private static let lowestKernelAddress: UInt64 = 1 << 20

    /// Reads the headers of the file at `path`.
    public init(path: String) throws(SupportError) {
        let descriptor: OwnedDescriptor
        switch SystemCall.open(path, flags: O_RDONLY | O_NONBLOCK) {
        case .success(let number): descriptor = OwnedDescriptor(adopting: number)
        case .failure(let error): throw .systemCall(operation: "open kernel", subject: path, code: error.code)
        }
        guard case .success(let status) = SystemCall.status(ofDescriptor: descriptor.number),
            status.isRegularFile
        else { throw .unusableImage(path: path, reason: "not a regular file: name a kernel or payload file") }
        let number = descriptor.number
        let source = ImageSource(size: UInt64(clamping: status.size)) {
            offset, count throws(ImageFormatError) in
            switch SystemCall.read(number, count: count, at: Int(offset)) {
            case .success(let bytes): return bytes
            case .failure(let error): throw .unreadable(code: error.code)
            }
        }
        do throws(ImageFormatError) { self = try Self.inspect(source) } catch {
            switch error {
            case .damaged(let reason): throw .unusableImage(path: path, reason: reason)
            case .unreadable(let code): throw .systemCall(operation: "read", subject: path, code: code)
            }
        }
    }

    private init(kind: Kind, footprintBytes: UInt64) {
        self.kind = kind
        self.footprintBytes = footprintBytes
    }

    private static func inspect(_ source: ImageSource) throws(ImageFormatError) -> KernelFile {
        let head = try source.head(0x268)
        if ELF64.isELF(head) { return try inspectELF(source) }
        guard BzImageHeader.isBzImage(head) else {
            throw .damaged("neither an ELF file nor a bzImage: name a vmlinux, a bzImage or a payload")
        }
        return KernelFile(kind: .bzImage, footprintBytes: try BzImageHeader(source).entry64().sizeInMemory)
    }

    private static func inspectELF(_ source: ImageSource) throws(ImageFormatError) -> KernelFile {
        let elf = try ELF64(source)
        let notes = try KernelNotes(of: elf, in: source)
        // A dynamic linker is asked for by programs only, thread-local storage by some kernels.
        let hasNote = notes.pvhEntry != nil || notes.isPayload
        if elf.hasInterpreter || elf.hasThreadStorage && !hasNote {
            throw .damaged(
                "a program for an operating system, not a kernel: name a vmlinux, a bzImage or a payload")
        }
        let segments = try elf.loadable(from: source)
        var footprint: UInt64 = 0
        for segment in segments {
            let (sum, overflow) = footprint.addingReportingOverflow(segment.sizeInMemory)
            footprint = overflow ? .max : sum
        }
        let kind = notes.isPayload ? Kind.payload : .vmlinux(hasPVH: notes.pvhEntry != nil)
        var file = KernelFile(kind: kind, footprintBytes: footprint)
        file.lowestAddress = segments.first?.address
        if notes.pvhEntry == nil { file.pvhProblem = notes.pvhProblem }
        return file
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
