import FoundationEssentials

/// A Debian cloud kernel in the image cache: the packed image, the plain vmlinux, its configuration and the modules
/// that guests and the nested lab load.
public struct DebianKernel: Sendable {
    /// One file of the kernel's directory. Sizes in bytes, times in nanoseconds since 1970.
    public struct File: Codable, Equatable, Sendable {
        public let name: String
        public let sha256: String
        public let size: Int
        public let modified: Int64
    }

    /// What `manifest.json` holds.
    public struct Manifest: Codable, Equatable, Sendable {
        /// As `uname -r` tells it in the guest.
        public let version: String
        /// Name and version of the package, or the path of the image it was copied from.
        public let source: String
        public let files: [File]
    }

    /// What guests load: the power button, the device that reports a guest's panic, and virtio with its entropy device.
    public static let guestModules = [
        "button", "evdev", "pvpanic", "pvpanic-mmio", "virtio_mmio", "virtio-rng",
    ]
    /// What the nested lab loads: KVM on the emulated processor, and a disk for results.
    public static let labModules = ["irqbypass", "kvm", "kvm-amd", "virtio_mmio", "virtio_blk"]

    private static let folder = "kernels"
    private static let metaPackage = "linux-image-cloud-amd64"
    private static let packagePrefix = "linux-image-"
    private static let flavour = "-cloud-amd64"
    private static let manifestName = "manifest.json"

    /// Directory with `vmlinuz`, `vmlinux`, `config` and `modules/NAME.ko`.
    public let directory: String
    public let manifest: Manifest

    public var version: String { manifest.version }
    /// The uncompressed ELF kernel, to be entered by PVH.
    public var vmlinux: String { "\(directory)/vmlinux" }
    /// The packed image.
    public var vmlinuz: String { "\(directory)/vmlinuz" }
    public var configuration: String { "\(directory)/config" }

    /// The newest kernel in the cache whose files are all as they were (by size and time), and which has all modules that are wanted; nil
    /// if there is none.
    public static func cached(in cache: ImageCache) -> DebianKernel? {
        let root = cache.path(folder)
        return newestFirst(FileSystem.names(in: root)).lazy.compactMap {
            try? DebianKernel(directory: "\(root)/\($0)")
        }
        .first { $0.hasModules(guestModules + labModules) }
    }

    /// The cached kernel; else one from /boot, else a downloaded one is put into the cache first. Waits for another
    /// process that does the same.
    /// - Parameters:
    ///   - systemRoot: where `boot` and `lib/modules` of this machine are.
    ///   - searchPath: where apt and dpkg are looked for; nil: in PATH.
    ///   - progress: is told what takes a while.
    /// - Throws: `noKernel` with the reason and what can be done.
    public static func locate(
        in cache: ImageCache, systemRoot: String = "", searchPath: String? = nil,
        progress: (String) -> Void = { _ in }
    ) throws(GuestImagesError) -> DebianKernel {
        if let kernel = cached(in: cache) { return kernel }
        return try cache.withLock(folder) { () throws(GuestImagesError) in
            if let kernel = cached(in: cache) { return kernel }
            if let version = installedVersion(systemRoot) {
                progress("copying the kernel \(version) from \(systemRoot)/boot")
                return try keep(
                    version: version, root: systemRoot, source: "\(systemRoot)/boot/vmlinuz-\(version)",
                    cache: cache)
            }
            return try download(cache, searchPath, progress)
        }
    }

    /// Fetches what the system's package index offers now, even if another kernel is cached already.
    public static func update(in cache: ImageCache, progress: (String) -> Void = { _ in })
        throws(GuestImagesError)
        -> DebianKernel
    {
        try cache.withLock(folder) { () throws(GuestImagesError) in try download(cache, nil, progress) }
    }

    /// Opens a directory of the cache and compares sizes and times with the manifest.
    public init(directory: String) throws(GuestImagesError) {
        let bytes = try FileSystem.read("\(directory)/\(Self.manifestName)")
        guard let manifest = try? JSONDecoder().decode(Manifest.self, from: Data(bytes)) else {
            throw .damagedCache(path: directory, reason: "its manifest cannot be read")
        }
        for file in manifest.files {
            guard let found = FileSystem.sizeAndTime("\(directory)/\(file.name)") else {
                throw .damagedCache(path: directory, reason: "\(file.name) is missing")
            }
            guard found == (file.size, file.modified) else {
                throw .damagedCache(path: directory, reason: "\(file.name) was changed")
            }
        }
        self.directory = directory
        self.manifest = manifest
    }

    /// Reads every file and compares its SHA-256 with the manifest.
    public func verify() throws(GuestImagesError) {
        for file in manifest.files {
            let path = "\(directory)/\(file.name)"
            let digest = SHA256.hexadecimalDigest(of: try FileSystem.read(path))
            guard digest == file.sha256 else {
                throw .checksumMismatch(path: path, expected: file.sha256, actual: digest)
            }
        }
    }

    /// An older version of this program may have kept fewer.
    private func hasModules(_ names: [String]) -> Bool {
        let kept = Set(manifest.files.map(\.name))
        return names.allSatisfy { kept.contains("modules/\(KernelModules.name($0)).ko") }
    }

    /// Paths of these modules and of those they need, in the order in which they must be loaded.
    public func modules(_ names: [String] = guestModules) throws(GuestImagesError) -> [String] {
        let folder = "\(directory)/modules"
        return try KernelModules(directory: folder).loadOrder(of: names).map { "\(folder)/\($0).ko" }
    }

    // MARK: - Filling the cache

    private static func installedVersion(_ systemRoot: String) -> String? {
        let prefix = "vmlinuz-"
        let versions = FileSystem.names(in: "\(systemRoot)/boot")
            .filter { $0.hasPrefix(prefix) && $0.hasSuffix(flavour) }.map {
                String($0.dropFirst(prefix.count))
            }
        return newestFirst(versions).first {
            FileSystem.isReadable("\(systemRoot)/boot/\(prefix)\($0)")
                && FileSystem.isDirectory("\(systemRoot)/lib/modules/\($0)")
        }
    }

    private static func download(_ cache: ImageCache, _ searchPath: String?, _ progress: (String) -> Void)
        throws(GuestImagesError)
        -> DebianKernel
    {
        do throws(GuestImagesError) {
            return try cache.withTemporaryDirectory { scratch throws(GuestImagesError) in
                let packages = DebianPackages(scratch: scratch, searchPath: searchPath)
                guard let name = try packages.dependency(of: metaPackage, suffix: flavour),
                    let package = try packages.candidate(name)
                else { throw .noKernel(reason: "apt knows no package \(metaPackage)") }
                progress("downloading \(package.name) \(package.version)")
                let root = "\(scratch)/root"
                try packages.unpack(package, root: root)
                return try keep(
                    version: String(package.name.dropFirst(packagePrefix.count)), root: root,
                    source: "\(package.name) \(package.version)", cache: cache)
            }
        } catch {
            // Whatever apt's trouble is, the reader's way out is the same.
            if case .toolFailed = error, !error.isForWantOfRoom { throw .noKernel(reason: error.description) }
            throw error
        }
    }

    /// Takes what is needed of a kernel's files under `root` into the cache.
    static func keep(version: String, root: String, source: String, cache: ImageCache)
        throws(GuestImagesError)
        -> DebianKernel
    {
        let directory = try cache.install("\(folder)/debian-\(version)") { target throws(GuestImagesError) in
            let image = try FileSystem.read("\(root)/boot/vmlinuz-\(version)")
            var contents = [("vmlinuz", image), ("vmlinux", try BzImage(image).extractVmlinux())]
            let configuration = "\(root)/boot/config-\(version)"
            if FileSystem.isReadable(configuration) {
                contents.append(("config", try FileSystem.read(configuration)))
            }
            let modules = KernelModules(directory: "\(root)/lib/modules/\(version)")
            try FileSystem.makeDirectory("\(target)/modules")
            for name in try modules.loadOrder(of: guestModules + labModules) {
                contents.append(("modules/\(name).ko", try modules.bytes(of: name)))
            }
            var files: [File] = []
            for (name, bytes) in contents {
                try FileSystem.write(bytes, to: "\(target)/\(name)")
                guard let found = FileSystem.sizeAndTime("\(target)/\(name)") else {
                    throw .damagedCache(path: target, reason: "\(name) vanished")
                }
                files.append(
                    File(
                        name: name, sha256: SHA256.hexadecimalDigest(of: bytes), size: found.size,
                        modified: found.modified))
            }
            try FileSystem.write(
                try encode(Manifest(version: version, source: source, files: files)),
                to: "\(target)/\(manifestName)")
        }
        return try DebianKernel(directory: directory)
    }

    private static func encode(_ manifest: Manifest) throws(GuestImagesError) -> [UInt8] {
        let encoder = JSONEncoder()
        encoder.outputFormatting = [.prettyPrinted, .sortedKeys]
        do {
            return Array(try encoder.encode(manifest)) + [UInt8(ascii: "\n")]
        } catch {
            throw .file(operation: "encode", path: manifestName, reason: "\(error)")
        }
    }

    /// By the numbers in them, so that 6.1.0-56 comes before 6.1.0-9.
    static func newestFirst(_ versions: [String]) -> [String] {
        func numbers(_ version: String) -> [Int] {
            version.split { !("0"..."9").contains($0) }.compactMap { Int($0) }
        }
        return versions.sorted { numbers($1).lexicographicallyPrecedes(numbers($0)) }
    }
}
