import FoundationEssentials

/// Where the guest files that `make guests` builds are: `payloads/NAME.elf` and `linux/`.
public struct ShareDirectory: Equatable, Sendable {
    private static let buildName = ".build-guests"
    private static let installedName = "share/mingle"

    public let path: String

    public init(path: String) {
        self.path = path
    }

    /// Looks at MINGLE_SHARE (nothing else, if it is set), then beside the executable (`../share/mingle`), then for a
    /// `.build-guests` in the directories above the executable and above the current directory.
    /// - Parameters:
    ///   - environment: nil for this process's.
    ///   - executable: nil for this process's.
    ///   - currentDirectory: nil for this process's.
    public static func find(
        environment: [String: String]? = nil, executable: String? = nil, currentDirectory: String? = nil
    ) throws(GuestImagesError) -> ShareDirectory {
        let environment = environment ?? ProcessInfo.processInfo.environment
        if let path = environment["MINGLE_SHARE"], !path.isEmpty {
            guard FileSystem.isDirectory(path) else { throw .noShareDirectory(searched: [path]) }
            return ShareDirectory(path: path)
        }
        let program = directory(of: FileSystem.realPath(executable ?? "/proc/self/exe"))
        let current = currentDirectory ?? FileManager.default.currentDirectoryPath
        let installed = "\(directory(of: program))/\(installedName)".replacing("//", with: "/")
        var searched: [String] = []
        for path in [installed] + candidates(above: program) + candidates(above: current) {
            if FileSystem.isDirectory(path) { return ShareDirectory(path: path) }
            if !searched.contains(path) { searched.append(path) }
        }
        throw .noShareDirectory(searched: [
            installed, "\(buildName) above \(program)", "\(buildName) above \(current)",
        ])
    }

    /// The files of the Linux initramfs.
    public var linux: String { "\(path)/linux" }
    /// The payloads' ELF files.
    public var payloads: String { "\(path)/payloads" }

    private static func directory(of path: String) -> String {
        let parent = path.lastIndex(of: "/").map { String(path[..<$0]) } ?? "."
        return parent.isEmpty ? "/" : parent
    }

    private static func candidates(above start: String) -> [String] {
        var (paths, at) = ([String](), start)
        while true {
            paths.append(at == "/" ? "/\(buildName)" : "\(at)/\(buildName)")
            if at == "/" || !at.contains("/") { return paths }
            at = directory(of: at)
        }
    }
}
