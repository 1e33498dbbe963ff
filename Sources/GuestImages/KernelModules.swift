/// Kernel modules and what they need, read from the modules themselves: a package that was only unpacked has no
/// modules.dep.
struct KernelModules: Sendable {
    private static let suffixes: [(suffix: String, compression: Compression?)] = [
        (".ko", nil), (".ko.xz", .xz), (".ko.zst", .zstd), (".ko.gz", .gzip),
    ]
    private static let sizeLimit = 64 << 20

    let directory: String
    private let files: [String: (path: String, compression: Compression?)]

    /// Finds all modules under a directory such as `/lib/modules/VERSION`.
    init(directory: String) {
        var files: [String: (path: String, compression: Compression?)] = [:]
        for path in FileSystem.tree(under: directory) {
            let file = path.split(separator: "/").last.map(String.init) ?? path
            for (suffix, compression) in Self.suffixes where file.hasSuffix(suffix) {
                files[Self.name(String(file.dropLast(suffix.count)))] = ("\(directory)/\(path)", compression)
            }
        }
        self.directory = directory
        self.files = files
    }

    /// How the kernel writes a module's name: dashes in file names are underscores.
    static func name(_ text: String) -> String {
        String(text.map { $0 == "-" ? "_" : $0 })
    }

    /// The module's bytes, uncompressed.
    func bytes(of module: String) throws(GuestImagesError) -> [UInt8] {
        guard let file = files[Self.name(module)] else { throw .noModule(name: module, directory: directory) }
        let bytes = try FileSystem.read(file.path)
        guard let compression = file.compression else { return bytes }
        return try compression.decompress(bytes[...], limit: Self.sizeLimit)
    }

    /// The modules wanted and all they need, each after those that it needs, as kernel names.
    func loadOrder(of wanted: [String]) throws(GuestImagesError) -> [String] {
        var order: [String] = []
        var open: Set<String> = []
        func add(_ module: String) throws(GuestImagesError) {
            let name = Self.name(module)
            guard !order.contains(name) else { return }
            guard open.insert(name).inserted else { throw .circularModules(name: name) }
            for dependency in try Self.dependencies(of: bytes(of: name), name: name) { try add(dependency) }
            order.append(name)
        }
        for module in wanted { try add(module) }
        return order
    }

    /// What the `depends=` entry of the section .modinfo (NUL-terminated NAME=VALUE strings) lists.
    static func dependencies(of module: [UInt8], name: String) throws(GuestImagesError) -> [String] {
        let file = try ELFFile(module, what: "the kernel module \(name)")
        guard let information = try file.section(named: ".modinfo") else {
            throw .invalidELF(what: "the kernel module \(name)", reason: "it has no section .modinfo")
        }
        let key = Array("depends=".utf8)
        for entry in information.split(separator: 0) where entry.starts(with: key) {
            return String(decoding: entry.dropFirst(key.count), as: UTF8.self).split(separator: ",").map(
                String.init)
        }
        return []
    }
}
