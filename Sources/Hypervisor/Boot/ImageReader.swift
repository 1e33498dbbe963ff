internal import GuestMemory
internal import LinuxHost
internal import Glibc

/// Reads parts of a file that a user named, with errors that name it.
struct ImageReader: ~Copyable {
    let size: UInt64
    private let number: Int32
    private let name: String

    init(_ file: borrowing OwnedDescriptor, name: String) throws(HypervisorError) {
        self.name = name
        number = file.number
        size = try hypervisorSystem { () throws(LinuxError) in try file.fileSize() }
    }

    /// - Throws: `badImage` when the file has not that many bytes there.
    func bytes(at offset: UInt64, count: Int, what: String) throws(HypervisorError) -> ByteSlice {
        guard offset <= size, UInt64(count) <= size - offset else {
            throw bad(
                "truncated: its \(what) should be \(count) bytes at \(offset), but the file has \(size)")
        }
        let bytes = try hypervisorSystem { () throws(LinuxError) in
            try OwnedDescriptor.readBytes(of: number, count: count, at: offset)
        }
        guard bytes.count == count else { throw bad("shrank while it was read") }
        return ByteSlice(bytes)
    }

    func bad(_ text: String) -> HypervisorError { .badImage("\(name): \(text)") }
}

/// Little-endian integers at offsets of an array. Callers know the size: they asked for it.
struct ByteSlice {
    let bytes: [UInt8]
    private let base: Int
    init(_ bytes: [UInt8], base: Int = 0) {
        self.bytes = bytes
        self.base = base
    }
    var count: Int { bytes.count - base }
    subscript(offset: Int) -> UInt8 { bytes[base + offset] }
    subscript(range: Range<Int>) -> ArraySlice<UInt8> {
        bytes[base + range.lowerBound..<base + range.upperBound]
    }
    func u16(_ offset: Int) -> UInt16 { UInt16(self[offset]) | UInt16(self[offset + 1]) << 8 }
    func u32(_ offset: Int) -> UInt32 { UInt32(u16(offset)) | UInt32(u16(offset + 2)) << 16 }
    func u64(_ offset: Int) -> UInt64 { UInt64(u32(offset)) | UInt64(u32(offset + 4)) << 32 }
}

/// Builds little-endian tables.
struct ByteWriter {
    private(set) var bytes: [UInt8] = []
    mutating func put<T: FixedWidthInteger>(_ value: T) {
        for index in 0..<T.bitWidth / 8 { bytes.append(UInt8(truncatingIfNeeded: value >> T(index * 8))) }
    }
    mutating func put(_ text: String, width: Int) {
        let utf8 = Array(text.utf8.prefix(width))
        bytes += utf8 + [UInt8](repeating: 0x20, count: width - utf8.count)
    }
    mutating func put(_ more: [UInt8]) { bytes += more }
    mutating func pad(to size: Int) {
        if bytes.count < size { bytes += [UInt8](repeating: 0, count: size - bytes.count) }
    }
    /// Overwrites bytes that are there already.
    mutating func set<T: FixedWidthInteger>(_ value: T, at offset: Int) {
        for index in 0..<T.bitWidth / 8 {
            bytes[offset + index] = UInt8(truncatingIfNeeded: value >> T(index * 8))
        }
    }
}
