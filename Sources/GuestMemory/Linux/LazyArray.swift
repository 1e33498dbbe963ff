/// An array of plain values, zero at first, in memory that costs nothing where it was never written. One thread at a time.
@safe
public final class LazyArray<Element: BitwiseCopyable> {
    public let count: Int
    private let mapping: MemoryMapping

    /// - Throws: when the host has no address space left.
    public init(count: Int) throws(LinuxError) {
        self.count = count
        mapping = try .anonymous(sizeInBytes: UInt64(max(count, 1) * MemoryLayout<Element>.stride))
    }

    public subscript(index: Int) -> Element {
        get {
            precondition(index >= 0 && index < count, "index within the array")
            // SAFETY: in bounds; the mapping is page aligned, holds `count` elements and lives as long as self; zero bytes
            // are a valid Element for the integers this is used with.
            return unsafe mapping.base.load(
                fromByteOffset: index * MemoryLayout<Element>.stride, as: Element.self)
        }
        set {
            precondition(index >= 0 && index < count, "index within the array")
            // SAFETY: as above.
            unsafe mapping.base.storeBytes(
                of: newValue, toByteOffset: index * MemoryLayout<Element>.stride, as: Element.self)
        }
    }
}
