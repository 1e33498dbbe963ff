internal import CLinux

/// An array of 64-bit words that threads change without a lock, in memory that costs nothing until touched.
@safe
package final class AtomicWords: @unchecked Sendable {
    package let count: Int
    private let mapping: MemoryMapping

    package init(count: Int) throws(LinuxError) {
        self.count = max(count, 1)
        mapping = try .anonymous(sizeInBytes: UInt64(self.count) * 8)
    }

    private func pointer(_ index: Int) -> UnsafeMutablePointer<UInt64> {
        precondition(index >= 0 && index < count, "index within the array")
        // SAFETY: the mapping holds `count` aligned words and lives as long as this object.
        return unsafe mapping.base.assumingMemoryBound(to: UInt64.self) + index
    }

    // SAFETY (all below): `pointer` checked the index; the C side uses atomic instructions.
    package func load(_ index: Int) -> UInt64 { unsafe mingle_load64(pointer(index)) }
    package func or(_ bits: UInt64, at index: Int) { unsafe mingle_atomic_or64(pointer(index), bits) }
    package func add(_ value: UInt64, at index: Int) { unsafe mingle_atomic_add64(pointer(index), value) }
    package func exchange(_ value: UInt64, at index: Int) -> UInt64 {
        unsafe mingle_atomic_exchange64(pointer(index), value)
    }
}
