package import GuestMemory

/// A split virtqueue (virtio 1.2, 2.7), seen by the device. All that the driver wrote is read once and checked before it counts;
/// for one thread at a time.
///
/// ```
///  driver: descriptor table, available ring --> pop --> the device works --> push --> used ring --> interrupt, if wanted
/// ```
package struct VirtQueue: Sendable {
    /// Feature bits that change how a queue works (virtio 1.2, 6).
    package static let indirectDescriptors: UInt64 = 1 << 28
    package static let eventIndex: UInt64 = 1 << 29

    /// Where the driver put the three parts.
    package struct Places: Equatable, Sendable {
        package var descriptors = GuestAddress(0)
        package var available = GuestAddress(0)
        package var used = GuestAddress(0)
        package init() {}
    }

    private enum Flag {
        static let next: UInt16 = 1
        static let write: UInt16 = 2
        static let indirect: UInt16 = 4
        /// In the available ring: the driver wants no interrupts.
        static let noInterrupt: UInt16 = 1
    }
    private static let descriptorSize: UInt64 = 16

    private let memory: GuestMemory
    package let size: UInt16
    private let places: Places
    private let usesEventIndex: Bool
    private let allowsIndirect: Bool
    /// The driver's next entry that the device has not taken, and the device's next entry; both count on beyond the ring.
    package private(set) var nextAvailable: UInt16 = 0
    package private(set) var nextUsed: UInt16 = 0
    /// ``nextUsed`` when the driver was last told.
    private var toldUsed: UInt16 = 0

    /// - Parameters:
    ///   - size: of descriptors; a power of two.
    ///   - features: what was negotiated.
    package init(memory: GuestMemory, size: UInt16, places: Places, features: UInt64) throws(QueueError) {
        guard size > 0, size & (size - 1) == 0, size <= 1 << 15 else { throw .badSize(size) }
        self.memory = memory
        self.size = size
        self.places = places
        usesEventIndex = features & Self.eventIndex != 0
        allowsIndirect = features & Self.indirectDescriptors != 0
        // 2.7: alignments and sizes of the parts; the rings end with the word of the event index, used or not.
        try check(places.descriptors, bytes: Self.descriptorSize * UInt64(size), alignment: 16)
        try check(places.available, bytes: 6 + 2 * UInt64(size), alignment: 2)
        try check(places.used, bytes: 6 + 8 * UInt64(size), alignment: 4)
    }

    private func check(_ start: GuestAddress, bytes: UInt64, alignment: UInt64) throws(QueueError) {
        guard start.value % alignment == 0 else { throw .misaligned(start, alignment: alignment) }
        _ = try range(start, bytes)
    }

    private func range(_ start: GuestAddress, _ bytes: UInt64) throws(QueueError) -> GuestRange {
        guard let range = GuestRange(start: start, sizeInBytes: bytes), memory.isRAM(range) else {
            throw .notMemory(start, bytes: bytes)
        }
        return range
    }

    // MARK: from the driver

    /// Takes the next chain; nil when there is none.
    package mutating func pop() throws(QueueError) -> DescriptorChain? {
        let index = try loadIndex(places.available, 2)
        if index == nextAvailable { return nil }
        guard index &- nextAvailable <= size else { throw .indexTooFar(index: index, next: nextAvailable) }
        let entry = 4 + 2 * UInt64(nextAvailable % size)
        let head: UInt16 = try load(places.available, entry)
        let chain = try chain(head)
        nextAvailable &+= 1
        return chain
    }

    private func chain(_ head: UInt16) throws(QueueError) -> DescriptorChain {
        var (table, count) = (places.descriptors, UInt64(size))
        var (number, isIndirect, left, bytes) = (UInt64(head), false, Int(size), UInt64(0))
        var (readable, writable): ([GuestRange], [GuestRange]) = ([], [])
        while true {
            guard number < count else { throw .noDescriptor(UInt16(truncatingIfNeeded: number)) }
            let start: UInt64 = try load(table, number * Self.descriptorSize)
            let rest: UInt64 = try load(table, number * Self.descriptorSize + 8)
            let length = rest & 0xffff_ffff
            let flags = UInt16(truncatingIfNeeded: rest >> 32)
            if flags & Flag.indirect != 0 {
                guard allowsIndirect, !isIndirect, flags & Flag.next == 0, length > 0,
                    length % Self.descriptorSize == 0
                else { throw .badIndirectTable }
                (table, count) = (try range(GuestAddress(start), length).start, length / Self.descriptorSize)
                (number, isIndirect) = (0, true)
                continue
            }
            left -= 1
            guard left >= 0 else { throw .chainTooLong }
            guard length > 0 else { throw .emptyBuffer }
            bytes += length
            guard bytes <= 1 << 32 else { throw .tooManyBytes }
            let buffer = try range(GuestAddress(start), length)
            if flags & Flag.write != 0 {
                writable.append(buffer)
            } else if writable.isEmpty {
                readable.append(buffer)
            } else {
                throw .readableBehindWritable
            }
            guard flags & Flag.next != 0 else { break }
            number = rest >> 48
        }
        return DescriptorChain(head: head, readable: readable, writable: writable)
    }

    // MARK: to the driver

    /// Gives a chain back.
    /// - Parameter written: bytes that the device wrote into the front of its writable buffers.
    package mutating func push(_ head: UInt16, written: UInt32) throws(QueueError) {
        let entry = 4 + 8 * UInt64(nextUsed % size)
        try store(UInt32(head), places.used, entry)
        try store(written, places.used, entry + 4)
        nextUsed &+= 1
        try storeIndex(nextUsed, places.used, 2)
    }

    /// Whether the driver wants to be told of what was pushed since it was last told (2.7.7); if so, it counts as told.
    package mutating func takeInterrupt() throws(QueueError) -> Bool {
        if nextUsed == toldUsed { return false }
        // What was pushed must be there before the driver's wish is read.
        GuestMemory.fullBarrier()
        let wants: Bool
        if usesEventIndex {
            let event: UInt16 = try loadIndex(places.available, 4 + 2 * UInt64(size))
            // Told when the entry that it named was passed.
            wants = nextUsed &- event &- 1 < nextUsed &- toldUsed
        } else {
            wants = try loadIndex(places.available, 0) & Flag.noInterrupt == 0
        }
        // With the event index, what was not wanted now may be wanted with the next entry.
        toldUsed = nextUsed
        return wants
    }

    /// Asks to be notified of the next chain.
    /// - Returns: whether there is one already, of which no notification may come.
    package func rearm() throws(QueueError) -> Bool {
        if usesEventIndex {
            try storeIndex(nextAvailable, places.used, 4 + 8 * UInt64(size))
            GuestMemory.fullBarrier()
        }
        return try loadIndex(places.available, 2) != nextAvailable
    }

    // MARK: access

    private func address(_ start: GuestAddress, _ offset: UInt64) -> GuestAddress {
        // Every part was checked not to wrap around.
        GuestAddress(start.value &+ offset)
    }

    private func load<T: FixedWidthInteger & UnsignedInteger>(_ start: GuestAddress, _ offset: UInt64)
        throws(QueueError) -> T
    {
        let address = address(start, offset)
        do throws(GuestMemoryError) { return try memory.load(T.self, at: address) } catch {
            throw .notMemory(address, bytes: UInt64(MemoryLayout<T>.size))
        }
    }

    private func store(_ value: UInt32, _ start: GuestAddress, _ offset: UInt64) throws(QueueError) {
        let address = address(start, offset)
        do throws(GuestMemoryError) { try memory.store(value, at: address) } catch {
            throw .notMemory(address, bytes: 4)
        }
    }

    private func loadIndex(_ start: GuestAddress, _ offset: UInt64) throws(QueueError) -> UInt16 {
        let address = address(start, offset)
        do throws(GuestMemoryError) { return try memory.loadAcquiring(at: address) } catch {
            throw .notMemory(address, bytes: 2)
        }
    }

    private func storeIndex(_ value: UInt16, _ start: GuestAddress, _ offset: UInt64) throws(QueueError) {
        let address = address(start, offset)
        do throws(GuestMemoryError) { try memory.storeReleasing(value, at: address) } catch {
            throw .notMemory(address, bytes: 2)
        }
    }
}
