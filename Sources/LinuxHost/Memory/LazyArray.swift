/// An array of plain values, zero at first, in memory that costs nothing where it was never written. One thread at a time.
@safe
public final class LazyArray<Element: BitwiseCopyable> {
    public let count: Int
    private let mapping: MemoryMapping
    /// The mapping's first byte.
    @usableFromInline let base: UnsafeMutableRawPointer

    /// - Throws: when the host has no address space left.
    public init(count: Int) throws(LinuxError) {
        self.count = count
        mapping = try .anonymous(sizeInBytes: UInt64(max(count, 1) * MemoryLayout<Element>.stride))
        // SAFETY: it is used only while self, and with it the mapping, is alive.
        unsafe base = mapping.base
    }

    /// Inlined into other modules: called for each page of each look, and a generic call costs more than the access.
    @inlinable public subscript(index: Int) -> Element {
        get {
            precondition(index >= 0 && index < count, "index within the array")
            // SAFETY: in bounds; the mapping is page aligned, holds `count` elements and lives as long as self; zero bytes
            // are a valid Element for the integers this is used with.
            return unsafe base.load(
                fromByteOffset: index * MemoryLayout<Element>.stride, as: Element.self)
        }
        set {
            precondition(index >= 0 && index < count, "index within the array")
            // SAFETY: as above.
            unsafe base.storeBytes(
                of: newValue, toByteOffset: index * MemoryLayout<Element>.stride, as: Element.self)
        }
    }
}
