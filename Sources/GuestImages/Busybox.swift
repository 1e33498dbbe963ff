import FoundationEssentials

/// The static busybox that guests get: the system's, or one from the Debian package busybox-static.
struct Busybox: Sendable {
    private static let folder = "busybox"
    private static let package = "busybox-static"
    private static let systemPaths = ["/bin/busybox", "/usr/bin/busybox"]

    let path: String
    let bytes: [UInt8]

    /// - Throws: `invalidELF` if it is not a static x86-64 program.
    init(path: String) throws(GuestImagesError) {
        let bytes = try FileSystem.read(path)
        let file = try ELFFile(bytes, what: path)
        guard file.isProgram else { throw .invalidELF(what: path, reason: "it is no program") }
        guard !file.hasInterpreter else {
            throw .invalidELF(what: path, reason: "it is not static, and guests have no shared libraries")
        }
        self.path = path
        self.bytes = bytes
    }

    /// The system's if it is static, else the cached one, else it is fetched.
    static func locate(in cache: ImageCache, systemPaths: [String] = systemPaths) throws(GuestImagesError)
        -> Busybox
    {
        let cached = cache.path("\(folder)/busybox")
        for path in systemPaths + [cached] {
            if let busybox = try? Busybox(path: path) { return busybox }
        }
        return try cache.withLock(folder) { () throws(GuestImagesError) in
            if let busybox = try? Busybox(path: cached) { return busybox }
            do throws(GuestImagesError) {
                try cache.withTemporaryDirectory { scratch throws(GuestImagesError) in
                    let packages = DebianPackages(scratch: scratch, searchPath: nil)
                    guard let candidate = try packages.candidate(package) else {
                        throw .noBusybox(reason: "apt knows no package \(package)")
                    }
                    try packages.unpack(candidate, root: "\(scratch)/root")
                    let unpacked = try Busybox(path: "\(scratch)/root/bin/busybox")
                    try cache.write(unpacked.bytes, to: "\(folder)/busybox", permissions: 0o755)
                }
            } catch {
                if case .toolFailed = error, !error.isForWantOfRoom {
                    throw .noBusybox(reason: error.description)
                }
                throw error
            }
            return try Busybox(path: cached)
        }
    }

    /// Names of the programs in it, as it tells them itself.
    func applets(scratch: String) throws(GuestImagesError) -> [String] {
        try Tool.run([path, "--list"], scratch: scratch).text.split(separator: "\n").map(String.init)
    }
}
