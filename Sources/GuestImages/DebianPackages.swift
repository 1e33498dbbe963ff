/// Gets Debian packages through the system's apt and takes them apart, without installing anything. Needs no root.
struct DebianPackages: Sendable {
    /// A directory for downloads and for what the tools say.
    let scratch: String
    /// Where apt and dpkg are looked for; nil: in PATH.
    let searchPath: String?

    /// What apt would choose for the package of that name now, or why it has none.
    struct Candidate: Sendable {
        let name: String
        let version: String
        let sha256: String
    }

    /// The first real package that a meta package depends on and whose name ends so.
    func dependency(of metaPackage: String, suffix: String) throws(GuestImagesError)
        -> String?
    {
        let answer = try Tool.run(
            ["apt-cache", "depends", metaPackage], scratch: scratch, searchPath: searchPath
        ).text
        for line in answer.split(separator: "\n") {
            let words = line.split(separator: " ")
            if words.count == 2, words[0] == "Depends:", words[1].hasSuffix(suffix) {
                return String(words[1])
            }
        }
        return nil
    }

    /// Name, version and digest of the newest version that apt knows.
    func candidate(_ name: String) throws(GuestImagesError) -> Candidate? {
        let answer = try Tool.run(
            ["apt-cache", "show", "--no-all-versions", name], scratch: scratch, searchPath: searchPath
        ).text
        func field(_ key: String) -> String? {
            answer.split(separator: "\n").first { $0.hasPrefix("\(key): ") }.map {
                String($0.dropFirst(key.count + 2))
            }
        }
        guard let version = field("Version"), let sha256 = field("SHA256") else { return nil }
        return Candidate(name: name, version: version, sha256: sha256)
    }

    /// Downloads a package into `scratch`, checks its digest and unpacks it into `root`, which is made.
    func unpack(_ package: Candidate, root: String) throws(GuestImagesError) {
        try Tool.run(
            ["apt-get", "--quiet=2", "download", "\(package.name)=\(package.version)"], scratch: scratch,
            inScratch: true, searchPath: searchPath)
        guard let name = FileSystem.names(in: scratch).first(where: { $0.hasSuffix(".deb") }) else {
            throw .file(
                operation: "find the downloaded package in", path: scratch, reason: "there is no .deb file")
        }
        let file = "\(scratch)/\(name)"
        let digest = SHA256.hexadecimalDigest(of: try FileSystem.read(file))
        guard digest == package.sha256 else {
            throw .checksumMismatch(path: name, expected: package.sha256, actual: digest)
        }
        try FileSystem.makeDirectory(root)
        try Tool.run(["dpkg-deb", "--extract", file, root], scratch: scratch, searchPath: searchPath)
        try FileSystem.remove(file)
    }
}
