/// Bounds-checked little-endian reads from bytes that somebody else made.
///
/// Reads with a label answer nil outside the bytes; those without are for places that the caller asked for before.
public struct ByteReader: Sendable {
    public let bytes: [UInt8]

    public init(bytes: [UInt8]) { self.bytes = bytes }

    public subscript(offset: Int) -> UInt8 { bytes[offset] }
    public func u16(_ offset: Int) -> UInt16 { UInt16(self[offset]) | UInt16(self[offset + 1]) << 8 }
    public func u32(_ offset: Int) -> UInt32 { UInt32(u16(offset)) | UInt32(u16(offset + 2)) << 16 }
    public func u64(_ offset: Int) -> UInt64 { UInt64(u32(offset)) | UInt64(u32(offset + 4)) << 32 }

    public func uint16(at offset: Int) -> UInt16? { has(2, at: offset) ? u16(offset) : nil }
    public func uint32(at offset: Int) -> UInt32? { has(4, at: offset) ? u32(offset) : nil }

    public func matches(_ pattern: [UInt8], at offset: Int) -> Bool {
        has(pattern.count, at: offset) && bytes[offset..<offset + pattern.count].elementsEqual(pattern)
    }

    /// The text up to the next NUL, at most `limit` bytes; nil if there is no NUL within reach.
    public func text(at offset: Int, limit: Int) -> String? {
        guard has(1, at: offset) else { return nil }
        let reach = bytes[offset..<min(bytes.count, offset + limit)]
        guard let end = reach.firstIndex(of: 0) else { return nil }
        return String(decoding: bytes[offset..<end], as: UTF8.self)
    }

    private func has(_ count: Int, at offset: Int) -> Bool {
        offset >= 0 && offset <= bytes.count && count <= bytes.count - offset
    }
}
