internal import LinuxHost

/// A guest physical address (GPA), in bytes. Arithmetic is checked: there is no `+`.
public struct GuestAddress: Hashable, Comparable, Sendable, CustomStringConvertible {
    public let value: UInt64
    public init(_ value: UInt64) { self.value = value }
    public static func < (left: Self, right: Self) -> Bool { left.value < right.value }
    /// The address `bytes` further on, or nil when it does not fit 64 bits.
    public func advanced(by bytes: UInt64) -> GuestAddress? {
        let (sum, overflow) = value.addingReportingOverflow(bytes)
        return overflow ? nil : GuestAddress(sum)
    }
    /// The frame that holds this byte.
    public var frame: GuestFrameNumber { GuestFrameNumber(value >> Page.shift) }
    public var description: String { "0x" + String(value, radix: 16) }
}

/// A guest frame number (gfn): a GPA in pages.
public struct GuestFrameNumber: Hashable, Comparable, Sendable, CustomStringConvertible {
    public let value: UInt64
    public init(_ value: UInt64) { self.value = value }
    public static func < (left: Self, right: Self) -> Bool { left.value < right.value }
    /// GPA of the frame's first byte.
    public var address: GuestAddress { GuestAddress(value << Page.shift) }
    public var description: String { "gfn 0x" + String(value, radix: 16) }
}

/// A half-open range of guest physical addresses.
public struct GuestRange: Hashable, Sendable, CustomStringConvertible {
    public let start: GuestAddress
    public let sizeInBytes: UInt64
    /// Nil when the end does not fit 64 bits.
    public init?(start: GuestAddress, sizeInBytes: UInt64) {
        guard start.advanced(by: sizeInBytes) != nil else { return nil }
        self.start = start
        self.sizeInBytes = sizeInBytes
    }
    /// First address behind the range.
    public var end: GuestAddress { GuestAddress(start.value &+ sizeInBytes) }
    public func overlaps(_ other: GuestRange) -> Bool {
        sizeInBytes > 0 && other.sizeInBytes > 0 && start < other.end && other.start < end
    }
    public func contains(_ other: GuestRange) -> Bool { start <= other.start && other.end <= end }
    public var description: String { "[\(start), \(end))" }
}
