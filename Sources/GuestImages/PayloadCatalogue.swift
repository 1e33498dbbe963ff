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
    private static let noteName = "Mingle"
    private static let noteType: UInt32 = 1
    private static let noteSize = 8

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
        let file: ELFFile
        do throws(GuestImagesError) {
            file = try ELFFile(bytes, what: path)
            try file.requireLoadable()
        } catch {
            guard case .invalidELF(_, let reason) = error else { throw error }
            throw .invalidPayload(path: path, reason: reason)
        }
        guard !file.hasInterpreter else { throw .invalidPayload(path: path, reason: "it is not static") }
        guard let note = file.note(name: noteName, type: noteType) else {
            throw .invalidPayload(path: path, reason: "it has no note '\(noteName)'")
        }
        let reader = ByteReader(bytes: note)
        guard note.count == noteSize, let version = reader.uint32(at: 0), let flags = reader.uint32(at: 4)
        else {
            throw .invalidPayload(
                path: path, reason: "its note has \(note.count) bytes instead of \(noteSize)")
        }
        guard version == abiVersion else {
            throw .invalidPayload(
                path: path, reason: "it is made for ABI \(version), and this is ABI \(abiVersion)")
        }
        guard flags == 0 else {
            throw .invalidPayload(path: path, reason: "it wants unknown features (\(flags))")
        }
    }
}
