/// 128 bits that stand for the content of a page: XXH3, keyed with the domain's secret.
///
/// Equal hashes never suffice: whoever merges compares all bytes. The key keeps a guest from making many pages that
/// fall into one chain of the index; it is no secret from the VMMs of the domain.
public struct ContentHash: Hashable, Sendable {
    public let low: UInt64
    public let high: UInt64
    public init(low: UInt64, high: UInt64) {
        self.low = low
        self.high = high
    }
}

/// Where a frame is: its page number in the domain's store file.
///
/// The file is sparse and its address space costs nothing, so it has segments as long as a guest can be, in which a frame
/// keeps a guest's page number: what lies side by side in a guest lies side by side in the store (`SlotMap`).
public struct FrameLocation: Hashable, Comparable, Sendable, CustomStringConvertible {
    /// Pages that a segment spans: the most a guest can have (256 GiB).
    public static let segmentSpan: UInt64 = 1 << 26

    /// First page number after the last that is ever used: a location and what it is not fit into 32 bits.
    public static let end: UInt64 = 63 * segmentSpan

    /// Page number in the store file.
    public let value: UInt64
    public init(_ value: UInt64) { self.value = value }
    public init(segment: UInt32, page: UInt64) {
        precondition(page < Self.segmentSpan, "a page of the segment")
        value = UInt64(segment) * Self.segmentSpan + page
    }
    public var segment: UInt32 { UInt32(value / Self.segmentSpan) }
    /// Byte offset in the store file.
    public var fileOffset: UInt64 { value << 12 }
    public func advanced(by count: Int) -> FrameLocation { FrameLocation(value + UInt64(count)) }
    public static func < (left: Self, right: Self) -> Bool { left.value < right.value }
    public var description: String { "frame \(segment):0x" + String(value % Self.segmentSpan, radix: 16) }
}
