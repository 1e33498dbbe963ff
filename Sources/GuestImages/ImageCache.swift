import FoundationEssentials
import Glibc

/// The directory where kernels and initramfs images are kept between runs. Nothing is written outside it.
///
/// Whatever is in it can be removed at any time; it is fetched or built again. Files appear whole or not at all, and
/// two processes that build the same image take turns.
public struct ImageCache: Equatable, Sendable {
    /// Absolute path; created when the first image is.
    public let directory: String

    private static let temporaryPrefix = ".building-"
    /// In seconds. A builder in another container cannot be seen by its process number.
    private static let abandonedAfter: Int64 = 3600

    public init(directory: String) {
        self.directory = directory
    }

    /// `mingle` in XDG_CACHE_HOME, or in `~/.cache` (XDG Base Directory Specification: relative paths do not count).
    /// - Parameter environment: nil for this process's.
    public init(environment: [String: String]? = nil) throws(GuestImagesError) {
        let environment = environment ?? ProcessInfo.processInfo.environment
        func absolute(_ name: String) -> String? {
            environment[name].flatMap { $0.hasPrefix("/") ? $0 : nil }
        }
        guard let base = absolute("XDG_CACHE_HOME") ?? absolute("HOME").map({ "\($0)/.cache" }) else {
            throw .noCacheDirectory
        }
        directory = "\(base)/mingle"
    }

    /// The path of something in the cache, there or not.
    public func path(_ name: String) -> String {
        "\(directory)/\(name)"
    }

    /// Writes a file of the cache in one step, with the directories above it.
    /// - Returns: its path.
    @discardableResult
    public func write(_ bytes: [UInt8], to name: String, permissions: UInt16 = 0o644) throws(GuestImagesError)
        -> String
    {
        let path = path(name)
        try FileSystem.makeDirectory(Self.parent(of: path))
        try FileSystem.write(bytes, to: path, permissions: permissions)
        return path
    }

    /// Runs `body` while no other process or thread holds the same lock; waits for it. The lock of a process that died
    /// is free at once.
    public func withLock<Result>(_ name: String, _ body: () throws(GuestImagesError) -> Result)
        throws(GuestImagesError) -> Result
    {
        try FileSystem.makeDirectory(directory)
        let path = path("\(name).lock")
        // SAFETY: the path is valid for the call.
        let descriptor = unsafe open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0o600)
        guard descriptor >= 0 else { throw FileSystem.systemFailure("open the lock", path) }
        defer { close(descriptor) }
        while flock(descriptor, LOCK_EX) != 0 {
            guard errno == EINTR else { throw FileSystem.systemFailure("lock", path) }
        }
        return try body()
    }

    /// Builds a directory of the cache: `body` fills a temporary one, which then takes the place of what was there.
    /// Call with the lock held; also clears away what a builder that was killed left behind.
    /// - Returns: the path of the directory.
    func install(_ name: String, _ body: (_ temporary: String) throws(GuestImagesError) -> Void)
        throws(GuestImagesError) -> String
    {
        let destination = path(name)
        try FileSystem.makeDirectory(Self.parent(of: destination))
        return try withTemporaryDirectory { temporary throws(GuestImagesError) in
            let built = "\(temporary)/built"
            try FileSystem.makeDirectory(built)
            try body(built)
            try FileSystem.remove(destination)
            try FileSystem.move(built, to: destination)
            return destination
        }
    }

    /// A directory within the cache for the time of `body`. Call with a lock held: those of earlier processes that were
    /// killed are removed.
    func withTemporaryDirectory<Result>(_ body: (String) throws(GuestImagesError) -> Result)
        throws(GuestImagesError) -> Result
    {
        for name in FileSystem.names(in: directory) where name.hasPrefix(Self.temporaryPrefix) {
            guard let process = name.dropFirst(Self.temporaryPrefix.count).split(separator: "-").first,
                let id = pid_t(process), kill(id, 0) != 0, errno == ESRCH,
                FileSystem.age(path(name)) > Self.abandonedAfter
            else { continue }
            try FileSystem.remove(path(name))
        }
        let temporary = path("\(Self.temporaryPrefix)\(getpid())-\(UInt32.random(in: 0...UInt32.max))")
        try FileSystem.makeDirectory(temporary)
        defer { try? FileSystem.remove(temporary) }
        return try body(temporary)
    }

    private static func parent(of path: String) -> String {
        path.lastIndex(of: "/").map { String(path[..<$0]) } ?? "."
    }
}
