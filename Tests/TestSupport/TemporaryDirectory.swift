import Foundation

/// A directory of its own for a test; it and all in it go with the object.
public final class TemporaryDirectory: Sendable {
    public let path: String

    public init() throws {
        // Short, since paths of sockets are bounded; others may look into it.
        let made = strdup(FileManager.default.temporaryDirectory.path + "/mingle-test-XXXXXX")
        defer { free(made) }
        guard let made, mkdtemp(made) != nil, chmod(made, 0o755) == 0 else {
            throw Failure("no temporary directory: \(String(cString: strerror(errno)))")
        }
        path = String(cString: made)
    }

    /// The path of a name in it.
    public func path(_ name: String) -> String { path + "/" + name }

    /// Writes a file, over any of that name, with the directories above it; returns its path.
    @discardableResult
    public func write(_ name: String, _ bytes: [UInt8]) throws -> String {
        let path = path(name)
        if let slash = name.lastIndex(of: "/") {
            try FileManager.default.createDirectory(
                atPath: self.path(String(name[..<slash])), withIntermediateDirectories: true,
                attributes: [.posixPermissions: 0o700])
        }
        try Data(bytes).write(to: URL(fileURLWithPath: path))
        return path
    }

    @discardableResult
    public func write(_ name: String, _ text: String) throws -> String {
        try write(name, Array(text.utf8))
    }

    /// The bytes of a file in it; none while it does not exist.
    public func bytes(_ name: String) -> [UInt8] {
        FileManager.default.contents(atPath: path(name)).map(Array.init) ?? []
    }
    public func text(_ name: String) -> String { String(decoding: bytes(name), as: UTF8.self) }

    deinit { try? FileManager.default.removeItem(atPath: path) }
}
