/// Bounds-checked little-endian reads from bytes that somebody else made. Every read answers nil outside the bytes.
struct ByteReader: Sendable {
    let bytes: [UInt8]

    func uint8(at offset: Int) -> UInt8? {
        bytes.indices.contains(offset) ? bytes[offset] : nil
    }

    func uint16(at offset: Int) -> UInt16? {
        integer(at: offset, UInt16.self)
    }

    func uint32(at offset: Int) -> UInt32? {
        integer(at: offset, UInt32.self)
    }

    func uint64(at offset: Int) -> UInt64? {
        integer(at: offset, UInt64.self)
    }

    /// The half-open range of `count` bytes from `start`, if it lies within the bytes.
    func range(start: UInt64, count: UInt64) -> Range<Int>? {
        let (end, overflow) = start.addingReportingOverflow(count)
        guard !overflow, end <= UInt64(bytes.count) else { return nil }
        return Int(start)..<Int(end)
    }

    func matches(_ pattern: [UInt8], at offset: Int) -> Bool {
        guard offset >= 0, offset <= bytes.count, pattern.count <= bytes.count - offset else { return false }
        return bytes[offset..<offset + pattern.count].elementsEqual(pattern)
    }

    /// The text up to the next NUL, at most `limit` bytes; nil if there is no NUL within reach.
    func text(at offset: Int, limit: Int) -> String? {
        guard offset >= 0, offset < bytes.count else { return nil }
        let reach = bytes[offset..<min(bytes.count, offset + limit)]
        guard let end = reach.firstIndex(of: 0) else { return nil }
        return String(decoding: bytes[offset..<end], as: UTF8.self)
    }

    private func integer<Value: FixedWidthInteger>(at offset: Int, _: Value.Type) -> Value? {
        let size = Value.bitWidth / 8
        guard offset >= 0, offset <= bytes.count, size <= bytes.count - offset else { return nil }
        var value: Value = 0
        for index in 0..<size {
            value |= Value(truncatingIfNeeded: bytes[offset + index]) << (8 * index)
        }
        return value
    }
}
