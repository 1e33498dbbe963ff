/// What can go wrong when guests are found, built, cached or verified. The description says what was wrong and what
/// to do about it.
public enum GuestImagesError: Error, Equatable, Sendable {
    /// A file or directory cannot be read, written, made or removed; `reason` is the system's.
    case file(operation: String, path: String, reason: String)
    /// There is no room for what is to be written, by what a tool or the system said.
    case noRoom(cache: String, reason: String)
    /// There is no directory for the cache: neither XDG_CACHE_HOME nor HOME is an absolute path.
    case noCacheDirectory
    /// Not an x86 Linux kernel image of boot protocol 2.08 or later, or damaged.
    case invalidKernelImage(reason: String)
    /// The kernel is packed in a way that is not supported.
    case unsupportedCompression(name: String)
    /// Compressed data is damaged.
    case decompressionFailed(format: String, reason: String)
    /// Decompressed data is larger than allowed; sizes in bytes.
    case outputTooLarge(limit: Int, expected: Int?)
    /// Not an ELF file of the kind that is needed, or damaged.
    case invalidELF(what: String, reason: String)
    /// A tool could not be started or failed; `output` is what it said.
    case toolFailed(command: String, status: Int32, output: String)
    /// No kernel is cached or installed and none could be fetched.
    case noKernel(reason: String)
    /// No static busybox is installed and none could be fetched.
    case noBusybox(reason: String)
    /// A downloaded or cached file is not what it should be.
    case checksumMismatch(path: String, expected: String, actual: String)
    /// The cached image is incomplete or was changed.
    case damagedCache(path: String, reason: String)
    /// A kernel module is not there.
    case noModule(name: String, directory: String)
    /// Kernel modules that need each other.
    case circularModules(name: String)
    /// A path that an archive cannot hold.
    case invalidArchiveEntry(path: String, reason: String)
    /// A command that cannot be passed to a guest.
    case invalidCommand(reason: String)
    /// The guest files that `make guests` builds are not there.
    case noShareDirectory(searched: [String])
    /// There is no payload of that name.
    case noPayload(name: String, available: [String], directory: String)
    /// A file of the catalogue that is no payload.
    case invalidPayload(path: String, reason: String)
}

extension GuestImagesError {
    /// Whether a disk or a quota is full, by what the system or a tool says.
    var isForWantOfRoom: Bool {
        switch self {
        case .file(_, _, let reason), .toolFailed(_, _, let reason):
            FileSystem.noRoomTexts.contains { reason.contains($0) }
        default: false
        }
    }
}

extension GuestImagesError: CustomStringConvertible {
    public var description: String {
        switch self {
        case .file(let operation, let path, let reason):
            "cannot \(operation) \(path): \(reason)"
        case .noRoom(let cache, let reason):
            """
            there is no room: \(reason). Make room there ('mingle images clean' empties the cache \(cache)), or set \
            XDG_CACHE_HOME to a directory with room
            """
        case .noCacheDirectory:
            "there is no directory for cached images: set HOME or XDG_CACHE_HOME to an absolute path"
        case .invalidKernelImage(let reason):
            "not a usable x86 kernel image: \(reason); give a bzImage (vmlinuz) or an uncompressed vmlinux"
        case .unsupportedCompression(let name):
            "the kernel is compressed with \(name); gzip, LZ4, zstd, xz and lzma are supported"
        case .decompressionFailed(let format, let reason):
            "the \(format) data is damaged: \(reason)"
        case .outputTooLarge(let limit, let expected):
            "decompressed data would \(expected.map { "be \($0) bytes" } ?? "go on") beyond the limit of \(limit) bytes"
        case .invalidELF(let what, let reason):
            "\(what) is not the ELF file it should be: \(reason)"
        case .toolFailed(let command, let status, let output):
            "'\(command)' failed with status \(status)\(output.isEmpty ? "" : ": \(output)")"
        case .noKernel(let reason):
            """
            there is no guest kernel: \(reason). Give one with --kernel FILE, or put a Debian cloud kernel \
            (/boot/vmlinuz-*-cloud-amd64 with its /lib/modules) on this machine, or run 'apt-get update' as root \
            and try again
            """
        case .noBusybox(let reason):
            "there is no static busybox: \(reason). Install the package busybox-static"
        case .checksumMismatch(let path, let expected, let actual):
            "\(path) has SHA-256 \(actual), but \(expected) was expected; remove it and try again"
        case .damagedCache(let path, let reason):
            "the cached \(path) is damaged: \(reason); remove that directory and try again"
        case .noModule(let name, let directory):
            "there is no kernel module \(name) under \(directory)"
        case .circularModules(let name):
            "the kernel module \(name) needs itself"
        case .invalidArchiveEntry(let path, let reason):
            "an archive cannot hold '\(path)': \(reason)"
        case .invalidCommand(let reason):
            "that command cannot be run in a guest: \(reason)"
        case .noShareDirectory(let searched):
            """
            the guest files are not built: run 'make guests', or set MINGLE_SHARE to the directory that holds them \
            (looked at \(searched.joined(separator: ", ")))
            """
        case .noPayload(let name, let available, let directory):
            """
            there is no payload '\(name)' in \(directory); there \
            \(available.isEmpty ? "are none: build them with 'make guests'" : "is: \(available.joined(separator: ", "))")
            """
        case .invalidPayload(let path, let reason):
            "\(path) is not a Mingle payload: \(reason); build it again with 'make guests'"
        }
    }
}
