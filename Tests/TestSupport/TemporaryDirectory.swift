import Foundation

/// A directory of its own for a test; it and all in it go with the object.
public final class TemporaryDirectory: Sendable {
    public let path: String

    public init() throws {
        let url = FileManager.default.temporaryDirectory.appendingPathComponent(
            "mingle-test-\(UUID().uuidString)")
        try FileManager.default.createDirectory(at: url, withIntermediateDirectories: false)
        path = url.path
    }

    /// The path of a name in it.
    public func path(_ name: String) -> String { path + "/" + name }

    /// Writes a file, over any of that name; returns its path.
    @discardableResult
    public func write(_ name: String, _ bytes: [UInt8]) throws -> String {
        let path = path(name)
        try Data(bytes).write(to: URL(fileURLWithPath: path))
        return path
    }

    /// The bytes of a file in it; none while it does not exist.
    public func bytes(_ name: String) -> [UInt8] {
        FileManager.default.contents(atPath: path(name)).map(Array.init) ?? []
    }
    public func text(_ name: String) -> String { String(decoding: bytes(name), as: UTF8.self) }

    deinit { try? FileManager.default.removeItem(atPath: path) }
}
