/// The bare programs that can be run as guests (guests/README.md has their ABI).
public struct PayloadCatalogue: Sendable {
    /// Version of the payload ABI that this build speaks.
    public static let abiVersion: UInt32 = 1

    public struct Payload: Equatable, Sendable {
        public let name: String
        /// The ELF file.
        public let path: String
    }

    private static let suffix = ".elf"

    public let directory: String

    public init(share: ShareDirectory) {
        directory = share.payloads
    }

    /// All that are there, by name; whether they are sound is found out when they are opened.
    public var payloads: [Payload] {
        FileSystem.names(in: directory).filter { $0.hasSuffix(Self.suffix) && $0 != Self.suffix }.map {
            Payload(name: String($0.dropLast(Self.suffix.count)), path: "\(directory)/\($0)")
        }
    }

    /// The payload of that name, checked.
    /// - Throws: `noPayload`, which lists those there are, or `invalidPayload`.
    public func find(_ name: String) throws(GuestImagesError) -> Payload {
        let payloads = payloads
        guard let payload = payloads.first(where: { $0.name == name }) else {
            throw .noPayload(name: name, available: payloads.map(\.name), directory: directory)
        }
        try Self.check(try FileSystem.read(payload.path), path: payload.path)
        return payload
    }

    /// Throws `invalidPayload` unless the bytes are a static x86-64 program with the note of this ABI version.
    public static func check(_ bytes: [UInt8], path: String) throws(GuestImagesError) {
        let version: UInt32
        do throws(GuestImagesError) {
            let file = try ELFFile(bytes, what: path)
            try file.requireLoadable()
            guard !file.hasInterpreter else { throw .invalidPayload(path: path, reason: "it is not static") }
            version = try file.payloadVersion()
        } catch {
            guard case .invalidELF(_, let reason) = error else { throw error }
            throw .invalidPayload(path: path, reason: reason)
        }
        guard version == abiVersion else {
            throw .invalidPayload(
                path: path, reason: "it is made for ABI \(version), and this is ABI \(abiVersion)")
        }
    }
}
