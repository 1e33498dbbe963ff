/// The initramfs of Linux guests: a static busybox, the files of guests/linux, and kernel modules. It is made once per
/// content of these and kept in the cache; what a single run adds comes as an overlay behind it.
public enum Initramfs {
    private static let folder = "initramfs"
    /// Part of the name in the cache: raised when the layout below changes.
    private static let layoutVersion = 1
    private static let keptCount = 8
    private static let emptyDirectories = ["dev", "etc", "mnt", "proc", "root", "run", "sys", "var"]
    private static let busyboxPath = "bin/busybox"
    private static let guestPath = "bin/mingle-guest"

    /// Path of the initramfs in the cache, built if it is not there yet.
    /// - Parameters:
    ///   - kernel: whose modules are added; nil: none, for kernels that have what they need built in.
    ///   - busybox: a static busybox; nil: the system's, or one fetched into the cache.
    public static func build(
        cache: ImageCache, share: ShareDirectory, kernel: DebianKernel? = nil, busybox: String? = nil
    ) throws(GuestImagesError) -> String {
        let tool = if let busybox { try Busybox(path: busybox) } else { try Busybox.locate(in: cache) }
        var inputs: [(name: String, bytes: [UInt8])] = [
            ("init", try FileSystem.read("\(share.linux)/init")),
            (guestPath, try FileSystem.read("\(share.linux)/mingle-guest")),
            (busyboxPath, tool.bytes),
        ]
        for path in try kernel?.modules() ?? [] {
            let name = path.split(separator: "/").last.map(String.init) ?? path
            inputs.append((name, try FileSystem.read(path)))
        }
        let name = "\(folder)/\(key(of: inputs)).cpio"
        if FileSystem.isReadable(cache.path(name)) { return cache.path(name) }
        return try cache.withLock(folder) { () throws(GuestImagesError) in
            if FileSystem.isReadable(cache.path(name)) { return cache.path(name) }
            let applets = try cache.withTemporaryDirectory { scratch throws(GuestImagesError) in
                try tool.applets(scratch: scratch)
            }
            let archive = try archive(
                initScript: inputs[0].bytes, guest: inputs[1].bytes, busybox: tool.bytes, applets: applets,
                modules: Array(inputs.dropFirst(3)))
            try forgetOld(in: cache)
            return try cache.write(archive, to: name)
        }
    }

    /// Every change of the guest's files leaves an archive behind; all but the latest few are removed.
    private static func forgetOld(in cache: ImageCache) throws(GuestImagesError) {
        let directory = cache.path(folder)
        let byAge = FileSystem.names(in: directory).map { "\(directory)/\($0)" }.sorted {
            FileSystem.age($0) < FileSystem.age($1)
        }
        for path in byAge.dropFirst(keptCount - 1) { try FileSystem.remove(path) }
    }

    /// The archive itself: the same bytes for the same contents.
    static func archive(
        initScript: [UInt8], guest: [UInt8], busybox: [UInt8], applets: [String],
        modules: [(name: String, bytes: [UInt8])]
    ) throws(GuestImagesError) -> [UInt8] {
        var archive = CPIOArchive()
        for name in emptyDirectories { try archive.add(name, .directory) }
        try archive.add("tmp", .directory, permissions: 0o1777)
        try archive.add("root", .directory, permissions: 0o700)
        // The kernel opens it for init before anything is mounted.
        try archive.add("dev/console", .characterDevice(major: 5, minor: 1))
        try archive.add("init", .file(initScript), permissions: 0o755)
        try archive.add(guestPath, .file(guest), permissions: 0o755)
        try archive.add(busyboxPath, .file(busybox), permissions: 0o755)
        for applet in Set(applets).sorted() where "bin/\(applet)" != busyboxPath {
            try archive.add("bin/\(applet)", .symbolicLink("busybox"))
        }
        try archive.add("etc/passwd", .file(Array("root::0:0:root:/root:/bin/sh\n".utf8)))
        try archive.add("etc/group", .file(Array("root:x:0:\ntty:x:5:\n".utf8)))
        guard !modules.isEmpty else { return archive.serialized() }
        for (name, bytes) in modules { try archive.add("mingle/modules/\(name)", .file(bytes)) }
        let order = modules.map { "\($0.name)\n" }.joined()
        try archive.add("mingle/modules/order", .file(Array(order.utf8)))
        return archive.serialized()
    }

    /// Changes with every byte and every name that goes in.
    private static func key(of inputs: [(name: String, bytes: [UInt8])]) -> String {
        var hash = SHA256()
        hash.update(Array("\(layoutVersion)\u{0}".utf8))
        for (name, bytes) in inputs {
            hash.update(Array("\(name)\u{0}\(bytes.count)\u{0}".utf8))
            hash.update(bytes)
        }
        return String(hash.finish().prefix(32))
    }
}
