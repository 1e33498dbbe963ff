/// What is wrong with an image. Whoever asked adds which file it is.
public enum ImageFormatError: Error, Equatable, Sendable {
    /// For people, without the file's name.
    case damaged(String)
    /// The file could not be read: an errno.
    case unreadable(code: Int32)
}

/// The bytes of an image, wherever they are. They are not trusted: a reader of formats asks for what the file has, and
/// nothing is kept but what was asked for.
public struct ImageSource {
    /// In bytes.
    public let size: UInt64
    /// Reads exactly so many bytes at an offset; the range lies within the size.
    private let body: (_ offset: UInt64, _ count: Int) throws(ImageFormatError) -> [UInt8]

    /// - Parameter read: gives so many bytes at an offset within the size; fewer if the file was cut meanwhile.
    public init(size: UInt64, read: @escaping (UInt64, Int) throws(ImageFormatError) -> [UInt8]) {
        self.size = size
        body = read
    }

    /// An image in memory.
    public init(_ bytes: [UInt8]) {
        self.init(size: UInt64(bytes.count)) { offset, count in
            Array(bytes[Int(offset)..<Int(offset) + count])
        }
    }

    /// Whether a range of the file is all there.
    public func holds(_ offset: UInt64, _ count: UInt64) -> Bool { offset <= size && count <= size - offset }

    /// A part of the image.
    /// - Parameter what: the part's name, for the error if the file is too short.
    public func part(_ what: String, at offset: UInt64, count: Int) throws(ImageFormatError) -> ByteReader {
        guard holds(offset, UInt64(count)) else {
            throw .damaged(
                "truncated: its \(what) should be \(count) bytes at \(offset), but the file has \(size)")
        }
        let bytes = try body(offset, count)
        guard bytes.count == count else { throw .damaged("shrank while it was read") }
        return ByteReader(bytes: bytes)
    }

    /// The first bytes, fewer where the file is shorter.
    public func head(_ count: Int) throws(ImageFormatError) -> ByteReader {
        try part("start", at: 0, count: Int(min(UInt64(count), size)))
    }
}

/// A number as addresses are written.
func hex(_ value: UInt64) -> String { String(value, radix: 16) }
