import FoundationEssentials
import Glibc
import LinuxHost

/// The directory where kernels and initramfs images are kept between runs. Nothing is written outside it.
///
/// Whatever is in it can be removed at any time; it is fetched or built again. Files appear whole or not at all, and
/// two processes that build the same image take turns.
public struct ImageCache: Equatable, Sendable {
    /// Absolute path; created when the first image is.
    public let directory: String

    private static let temporaryPrefix = ".building-"

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
    /// is free at once. What fails for want of room is said to.
    public func withLock<Result>(_ name: String, _ body: () throws(GuestImagesError) -> Result)
        throws(GuestImagesError) -> Result
    {
        do throws(GuestImagesError) {
            try FileSystem.makeDirectory(directory)
            let lock = try Self.lock(path("\(name).lock"), flags: O_RDWR | O_CREAT)
            defer { withExtendedLifetime(lock) {} }
            return try body()
        } catch {
            guard error.isForWantOfRoom else { throw error }
            throw .noRoom(cache: directory, reason: error.description)
        }
    }

    /// Opens and locks a file or directory; waits for it.
    /// - Returns: the descriptor, whose end is the lock's.
    private static func lock(_ path: String, flags: Int32) throws(GuestImagesError) -> OwnedDescriptor {
        do throws(LinuxError) {
            let descriptor = try OwnedDescriptor.open(path, flags: flags)
            _ = try descriptor.lock(waits: true)
            return descriptor
        } catch {
            throw .file(operation: "lock", path: path, reason: LinuxError.message(error.code))
        }
    }

    /// The same if nobody holds the lock; nil otherwise.
    private static func lockIfFree(_ path: String, flags: Int32) -> OwnedDescriptor? {
        guard let descriptor = try? OwnedDescriptor.open(path, flags: flags),
            (try? descriptor.lock()) == true
        else { return nil }
        return descriptor
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

    /// A directory within the cache for the time of `body`, locked meanwhile: those that nobody has locked are left over
    /// from processes that were killed, and are removed.
    func withTemporaryDirectory<Result>(_ body: (String) throws(GuestImagesError) -> Result)
        throws(GuestImagesError) -> Result
    {
        let temporary = path("\(Self.temporaryPrefix)\(getpid())-\(UInt32.random(in: 0...UInt32.max))")
        try FileSystem.makeDirectory(directory)
        let lock = try makeLocked(temporary)
        defer {
            try? FileSystem.remove(temporary)
            withExtendedLifetime(lock) {}
        }
        return try body(temporary)
    }

    /// Makes a directory within the cache and locks it.
    private func makeLocked(_ temporary: String) throws(GuestImagesError) -> OwnedDescriptor {
        // Who makes one and who removes them take turns, so that none is removed before it is locked.
        let turn = try Self.lock(directory, flags: O_RDONLY | O_DIRECTORY)
        defer { withExtendedLifetime(turn) {} }
        _ = try removeAbandoned()
        try FileSystem.makeDirectory(temporary)
        return try Self.lock(temporary, flags: O_RDONLY | O_DIRECTORY)
    }

    /// Removes what builders that were killed left behind; those that run are not disturbed.
    /// - Returns: the bytes that were freed.
    public func removeLeftovers() throws(GuestImagesError) -> UInt64 {
        guard FileSystem.isDirectory(directory) else { return 0 }
        let turn = try Self.lock(directory, flags: O_RDONLY | O_DIRECTORY)
        defer { withExtendedLifetime(turn) {} }
        var freed = try removeAbandoned()
        for part in FileSystem.names(in: directory)
        where !part.hasPrefix(".") && FileSystem.isDirectory(path(part)) {
            // Who writes files into a part holds its lock.
            guard let lock = Self.lockIfFree(path("\(part).lock"), flags: O_RDWR | O_CREAT) else { continue }
            defer { withExtendedLifetime(lock) {} }
            for name in FileSystem.names(in: path(part)) where FileSystem.isTemporary(name) {
                freed += Self.size(of: path("\(part)/\(name)"))
                try FileSystem.remove(path("\(part)/\(name)"))
            }
        }
        return freed
    }

    /// With the directory's lock held.
    private func removeAbandoned() throws(GuestImagesError) -> UInt64 {
        var freed: UInt64 = 0
        for name in FileSystem.names(in: directory) where name.hasPrefix(Self.temporaryPrefix) {
            guard let lock = Self.lockIfFree(path(name), flags: O_RDONLY | O_DIRECTORY) else { continue }
            defer { withExtendedLifetime(lock) {} }
            freed += Self.size(of: path(name))
            try FileSystem.remove(path(name))
        }
        return freed
    }

    private static func size(of path: String) -> UInt64 {
        ([path] + FileSystem.tree(under: path).map { "\(path)/\($0)" }).reduce(0) {
            $0 + UInt64(clamping: FileSystem.sizeAndTime($1)?.size ?? 0)
        }
    }

    private static func parent(of path: String) -> String {
        path.lastIndex(of: "/").map { String(path[..<$0]) } ?? "."
    }
}
