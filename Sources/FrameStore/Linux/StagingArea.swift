internal import CLinux
public import LinuxHost

/// Pages through which a client hands contents to its store: a memory file that the client writes and the store only
/// reads (with pread, into a buffer of its own, before it looks at them).
@safe
public final class StagingArea: Sendable {
    /// Pages of it.
    public static let slots = 256
    private static let size = UInt64(slots) * 4096
    public let descriptor: OwnedDescriptor
    /// The area in this process: slot k is the 4096 bytes at 4096 * k.
    package let mapping: MemoryMapping

    public init() throws(LinuxError) {
        descriptor = try .memoryFile(named: "mingle-staging")
        try descriptor.truncate(to: Self.size)
        try descriptor.seal([.shrink, .grow, .seal])
        mapping = try .shared(of: descriptor, sizeInBytes: Self.size, subject: "the staging area")
    }

    /// Copies a page into a slot.
    public func write(_ bytes: [UInt8], slot: UInt32) {
        precondition(bytes.count == 4096 && slot < Self.slots, "one page, and a slot of the area")
        // SAFETY: the slot lies in the mapping, by the check above.
        unsafe (mapping.base + Int(slot) * 4096).copyMemory(from: bytes, byteCount: 4096)
    }

    /// Gives the memory of all slots back to the host: they hold zeros then. Nothing may be on its way to the store.
    package func discard() { _ = mingle_punch_hole(descriptor.number, 0, Self.size) }

    /// Gives access to the 4096 bytes of a slot.
    @unsafe
    package func withStagingSlot<Result>(_ slot: UInt32, _ body: (UnsafeMutableRawBufferPointer) -> Result)
        -> Result
    {
        precondition(slot < Self.slots, "a slot of the area")
        // SAFETY: the slot lies in the mapping, which lives as long as this object.
        return unsafe body(UnsafeMutableRawBufferPointer(start: mapping.base + Int(slot) * 4096, count: 4096))
    }

    /// The bytes of a slot as the store would read them now; nil for a slot that does not exist.
    public func read(slot: UInt32) -> [UInt8]? {
        guard slot < Self.slots else { return nil }
        do throws(LinuxError) {
            let bytes = try descriptor.read(count: 4096, at: UInt64(slot) * 4096)
            return bytes.count == 4096 ? bytes : nil
        } catch { return nil }
    }
}
