import LinuxHost
import FoundationEssentials
import GuestImages
import MingleSupport
import VMMProtocol

/// Everything that the command line tool wants of the `GuestImages` library, with its errors turned into ours.
struct ImageProvider {
    let console: Console

    /// A Debian kernel in a form that can be booted.
    struct BootableKernel {
        let path: String
        /// What `mingle ps` shows.
        let label: String
        fileprivate let kernel: DebianKernel
    }

    /// The Debian kernel in the cache, fetched if it is not there.
    func debianKernel(_ format: KernelFormat) throws(SupportError) -> BootableKernel {
        let kernel = try locate()
        let path: String
        switch format {
        case .vmlinux: path = kernel.vmlinux
        case .bzimage: path = kernel.vmlinuz
        case .decompressed: path = try decompressed(kernel.vmlinuz)
        }
        return BootableKernel(path: path, label: "debian-\(kernel.version)", kernel: kernel)
    }

    /// A path of the vmlinux that is packed in a bzImage; it is unpacked into memory for this run alone.
    func decompressed(_ path: String) throws(SupportError) -> String {
        let bytes = try SystemCall.contents(of: path)
        guard !bytes.starts(with: [0x7F, 0x45, 0x4C, 0x46]) else {
            throw .unusableImage(path: path, reason: "is not packed: leave --format decompressed out")
        }
        let vmlinux = try images { () throws(GuestImagesError) in try BzImage(bytes).extractVmlinux() }
        return try VMMProgram.inherited(AnonymousFile.make("vmlinux", holding: vmlinux))
    }

    /// The path of a payload's file.
    func payload(_ name: String) throws(SupportError) -> String {
        try images { () throws(GuestImagesError) in try PayloadCatalogue(share: .find()).find(name).path }
    }

    /// The path of our initramfs, with the modules of the Debian kernel or, for another kernel, without any.
    func initramfs(for kernel: BootableKernel?) throws(SupportError) -> String {
        try images { () throws(GuestImagesError) in
            try Initramfs.build(cache: ImageCache(), share: .find(), kernel: kernel?.kernel)
        }
    }

    /// The archive that makes our initramfs run a command. It is told whether there is a terminal, and its size.
    func commandOverlay(_ words: [[UInt8]]) throws(SupportError) -> [UInt8] {
        let size = Console.terminalSize(0).map { Initramfs.TerminalSize(rows: $0.rows, columns: $0.columns) }
        return try images { () throws(GuestImagesError) in
            try Initramfs.commandOverlay(
                commandBytes: words, terminal: Console.isTerminal(0), size: size)
        }
    }

    fileprivate func locate() throws(SupportError) -> DebianKernel {
        try images { () throws(GuestImagesError) in
            try DebianKernel.locate(in: ImageCache()) { console.log(.warning, $0) }
        }
    }

    fileprivate func images<Result>(_ body: () throws(GuestImagesError) -> Result) throws(SupportError)
        -> Result
    {
        do throws(GuestImagesError) { return try body() } catch { throw .image(message: error.description) }
    }
}

/// The cache as `mingle images` shows it.
extension ImageProvider {
    /// One image.
    struct Image {
        enum Kind: String { case kernel, initramfs, payload }

        let kind: Kind
        /// What `mingle images path` calls it.
        let name: String
        let path: String
        let bytes: UInt64
        /// Where it came from, if that is known.
        let source: String?

        init(_ kind: Kind, _ name: String, path: String, source: String? = nil) {
            self.kind = kind
            self.name = name
            self.path = path
            self.source = source
            bytes = SystemCall.storedBytes(path)
        }
    }

    /// The parts of the cache that `clean` removes: each is also the name of the lock of who fills it.
    private static let cacheParts = ["kernels", "initramfs", "busybox"]

    /// What is there; nothing is fetched or built.
    func list() throws(SupportError) -> (cache: String, images: [Image]) {
        let cache = try cache()
        var found: [Image] = []
        if let kernel = DebianKernel.cached(in: cache) {
            let source = kernel.manifest.source
            found.append(Image(.kernel, "vmlinux", path: kernel.vmlinux, source: source))
            found.append(Image(.kernel, "vmlinuz", path: kernel.vmlinuz, source: source))
        }
        let archives = (try? FileManager.default.contentsOfDirectory(atPath: cache.path("initramfs"))) ?? []
        for name in archives.sorted() where name.hasSuffix(".cpio") && !name.hasPrefix(".") {
            found.append(Image(.initramfs, name, path: cache.path("initramfs/\(name)")))
        }
        if let share = try? ShareDirectory.find() {
            for payload in PayloadCatalogue(share: share).payloads {
                found.append(Image(.payload, "payload:\(payload.name)", path: payload.path))
            }
        }
        return (cache.directory, found)
    }

    /// Fetches the kernel and builds the initramfs; `update` asks for the newest kernel even if there is one.
    func build(update: Bool) throws(SupportError) -> [Image] {
        let cache = try cache()
        _ = try images { () throws(GuestImagesError) in try cache.removeLeftovers() }
        let kernel = try images { () throws(GuestImagesError) in
            let progress: (String) -> Void = { console.log(.info, $0) }
            return update
                ? try DebianKernel.update(in: cache, progress: progress)
                : try DebianKernel.locate(in: cache, progress: progress)
        }
        let archive = try initramfs(
            for: BootableKernel(path: kernel.vmlinux, label: kernel.version, kernel: kernel))
        return [
            Image(.kernel, "vmlinux", path: kernel.vmlinux, source: kernel.manifest.source),
            Image(.initramfs, "initramfs", path: archive),
        ]
    }

    /// The path of one image; kernel and initramfs are fetched and built if they are not there.
    func path(_ name: String) throws(SupportError) -> String {
        if name.hasPrefix("payload:") { return try payload(String(name.dropFirst("payload:".count))) }
        switch name {
        case "cache": return try cache().directory
        case "vmlinux", "kernel": return try locate().vmlinux
        case "vmlinuz": return try locate().vmlinuz
        case "config": return try locate().configuration
        case "initramfs": return try initramfs(for: debianKernel(.vmlinux))
        default:
            throw .requirement(
                problem: "there is no image '\(name)'",
                advice: "use vmlinux, vmlinuz, config, initramfs, cache or payload:NAME")
        }
    }

    /// Reads every image and compares it with what it should be: for each, nil or what is wrong.
    func verify() throws(SupportError) -> [(name: String, problem: String?)] {
        let cache = try cache()
        var results: [(name: String, problem: String?)] = []
        func check(_ name: String, _ body: () throws(GuestImagesError) -> Void) {
            do throws(GuestImagesError) {
                try body()
                results.append((name, nil))
            } catch {
                results.append((name, error.description))
            }
        }
        let root = cache.path("kernels")
        for name in ((try? FileManager.default.contentsOfDirectory(atPath: root)) ?? []).sorted() {
            guard !name.hasPrefix(".") else { continue }
            check(name) { () throws(GuestImagesError) in
                try DebianKernel(directory: "\(root)/\(name)").verify()
            }
        }
        if let share = try? ShareDirectory.find() {
            let catalogue = PayloadCatalogue(share: share)
            for payload in catalogue.payloads {
                check("payload:\(payload.name)") { () throws(GuestImagesError) in
                    _ = try catalogue.find(payload.name)
                }
            }
        }
        return results
    }

    /// Removes what can be fetched or built again; waits for others who are doing so. The bytes that were freed.
    func clean() throws(SupportError) -> UInt64 {
        let cache = try cache()
        guard SystemCall.exists(cache.directory) else { return 0 }
        var freed = try images { () throws(GuestImagesError) in try cache.removeLeftovers() }
        for part in Self.cacheParts where SystemCall.exists(cache.path(part)) {
            var failure: String?
            try images { () throws(GuestImagesError) in
                try cache.withLock(part) {
                    let bytes = SystemCall.storedBytes(cache.path(part))
                    do {
                        try FileManager.default.removeItem(atPath: cache.path(part))
                        freed += bytes
                    } catch {
                        failure = "\(error)"
                    }
                }
            }
            if let failure {
                throw .image(message: "cannot remove \(cache.path(part)): \(failure); remove it by hand")
            }
        }
        return freed
    }

    private func cache() throws(SupportError) -> ImageCache {
        try images { () throws(GuestImagesError) in try ImageCache() }
    }
}
