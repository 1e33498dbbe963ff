/// Sizes of the x86-64 base page, the unit in which memory is shared, logged and mapped.
public enum Page {
    /// Bytes in a page.
    public static let size: UInt64 = 4096
    /// log2 of ``size``.
    public static let shift: UInt64 = 12
    /// The bytes of `count` rounded up to whole pages, or nil when that overflows.
    public static func roundUp(_ count: UInt64) -> UInt64? {
        let (sum, overflow) = count.addingReportingOverflow(size - 1)
        return overflow ? nil : sum & ~(size - 1)
    }
    public static func isAligned(_ value: UInt64) -> Bool { value & (size - 1) == 0 }
}
