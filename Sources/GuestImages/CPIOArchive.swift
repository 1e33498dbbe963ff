/// Writes "newc" archives, the form of an initramfs (the kernel's Documentation/driver-api/early-userspace/buffer-format).
///
/// The same entries give the same bytes, in whatever order they were added: entries are sorted, times are 0, owners are
/// root, inode numbers count from 1.
public struct CPIOArchive: Sendable {
    public enum Content: Equatable, Sendable {
        case directory
        case file([UInt8])
        /// The target as it will be read, relative or absolute.
        case symbolicLink(String)
        case characterDevice(major: UInt32, minor: UInt32)
        case blockDevice(major: UInt32, minor: UInt32)

        fileprivate var typeBits: UInt32 {
            switch self {
            case .directory: 0o040000
            case .file: 0o100000
            case .symbolicLink: 0o120000
            case .characterDevice: 0o020000
            case .blockDevice: 0o060000
            }
        }

        fileprivate var defaultPermissions: UInt32 {
            switch self {
            case .directory: 0o755
            case .symbolicLink: 0o777
            case .file: 0o644
            case .characterDevice, .blockDevice: 0o600
            }
        }

        fileprivate var data: [UInt8] {
            switch self {
            case .file(let bytes): bytes
            case .symbolicLink(let target): Array(target.utf8)
            default: []
            }
        }

        fileprivate var device: (major: UInt32, minor: UInt32) {
            switch self {
            case .characterDevice(let major, let minor), .blockDevice(let major, let minor): (major, minor)
            default: (0, 0)
            }
        }
    }

    /// Archives that follow each other in one initramfs start at a multiple of this.
    public static let blockSize = 512
    /// PATH_MAX of the kernel that unpacks; it ignores longer names silently.
    private static let pathLimit = 4096
    private static let trailer = Array("TRAILER!!!".utf8)

    /// Keyed by the path's bytes, so that paths which look alike stay apart.
    private var entries: [[UInt8]: (content: Content, permissions: UInt32)] = [:]

    public init() {}

    /// Adds an entry, and the directories above it that are not there yet.
    /// - Parameters:
    ///   - path: relative, without `.`, `..` or empty parts.
    ///   - permissions: the low 12 bits of the mode; nil: what is usual for its kind.
    /// - Throws: `invalidArchiveEntry` for a path, size or link that the format cannot hold, or that is there already.
    public mutating func add(_ path: String, _ content: Content, permissions: UInt32? = nil)
        throws(GuestImagesError)
    {
        func fail(_ reason: String) -> GuestImagesError { .invalidArchiveEntry(path: path, reason: reason) }
        let name = Array(path.utf8)
        let parts = name.split(separator: UInt8(ascii: "/"), omittingEmptySubsequences: false)
        guard name.count < Self.pathLimit else { throw fail("it is too long") }
        guard !name.contains(0) else { throw fail("it has a NUL in it") }
        guard
            parts.allSatisfy({ !$0.isEmpty && !$0.elementsEqual(".".utf8) && !$0.elementsEqual("..".utf8) }),
            name != Self.trailer
        else { throw fail("paths are relative and have no empty, '.' or '..' parts") }
        if let permissions, permissions > 0o7777 { throw fail("permissions have 12 bits") }
        let data = content.data
        guard data.count <= UInt32.max else { throw fail("4 GiB and more do not fit") }
        if case .symbolicLink = content, data.isEmpty || data.contains(0) || data.count >= Self.pathLimit {
            throw fail("the link's target is empty, too long or has a NUL in it")
        }
        for length in parts.indices.dropFirst() {
            let parent = Array(parts[..<length].joined(separator: [UInt8(ascii: "/")]))
            guard let there = entries[parent] else {
                entries[parent] = (.directory, Content.directory.defaultPermissions)
                continue
            }
            guard there.content == .directory else { throw fail("what it lies in is no directory") }
        }
        if let there = entries[name] {
            guard there.content == .directory, content == .directory else {
                throw fail("it is there already")
            }
        }
        entries[name] = (content, permissions ?? content.defaultPermissions)
    }

    /// The archive, padded with zeros to a multiple of `blockSize`.
    public func serialized() -> [UInt8] {
        let size = entries.reduce(Self.blockSize) { $0 + 128 + $1.key.count + $1.value.content.data.count }
        var bytes: [UInt8] = []
        bytes.reserveCapacity(size + Self.blockSize)
        var inode: UInt32 = 0
        for (name, entry) in entries.sorted(by: { $0.key.lexicographicallyPrecedes($1.key) }) {
            inode += 1
            Self.append(
                to: &bytes, name: name, inode: inode, mode: entry.content.typeBits | entry.permissions,
                linkCount: entry.content == .directory ? 2 : 1, data: entry.content.data,
                device: entry.content.device)
        }
        Self.append(to: &bytes, name: Self.trailer, inode: 0, mode: 0, linkCount: 1, data: [], device: (0, 0))
        Self.pad(&bytes, to: Self.blockSize)
        return bytes
    }

    private static func append(
        to bytes: inout [UInt8], name: [UInt8], inode: UInt32, mode: UInt32, linkCount: UInt32, data: [UInt8],
        device: (major: UInt32, minor: UInt32)
    ) {
        let (owner, group, time, checksum) = (UInt32(0), UInt32(0), UInt32(0), UInt32(0))
        bytes += Array("070701".utf8)
        for field in [
            inode, mode, owner, group, linkCount, time, UInt32(data.count), 0, 0, device.major, device.minor,
            UInt32(name.count + 1), checksum,
        ] {
            let digits = String(field, radix: 16, uppercase: true)
            bytes += Array(repeating: UInt8(ascii: "0"), count: 8 - digits.utf8.count) + Array(digits.utf8)
        }
        bytes += name
        bytes.append(0)
        pad(&bytes, to: 4)
        bytes += data
        pad(&bytes, to: 4)
    }

    private static func pad(_ bytes: inout [UInt8], to multiple: Int) {
        let rest = bytes.count % multiple
        if rest != 0 { bytes += Array(repeating: 0, count: multiple - rest) }
    }
}
