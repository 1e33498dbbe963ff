import GuestMemory
import Hypervisor
import TestSupport
import Testing

@testable import Virtio

/// The driver's half of a split virtqueue, written from the specification (virtio 1.2, 2.7), over guest memory.
struct TestDriver {
    struct Buffer {
        var address: UInt64
        var length: UInt32
        var isWritable = false
    }
    static let next: UInt16 = 1, write: UInt16 = 2, indirect: UInt16 = 4

    let memory: GuestMemory
    let size: UInt16
    let places: VirtQueue.Places
    private(set) var available: UInt16 = 0
    private var lastUsed: UInt16 = 0

    /// Puts the parts one after the other, from `start` on.
    init(_ memory: GuestMemory, size: UInt16, at start: UInt64 = 0x1_0000) {
        self.memory = memory
        self.size = size
        var places = VirtQueue.Places()
        places.descriptors = GuestAddress(start)
        places.available = GuestAddress(start + 16 * UInt64(size))
        places.used = GuestAddress((places.available.value + 6 + 2 * UInt64(size) + 3) & ~3)
        self.places = places
    }

    func queue(features: UInt64 = 0) throws -> VirtQueue {
        try VirtQueue(memory: memory, size: size, places: places, features: features)
    }

    func setDescriptor(
        _ number: UInt16, _ address: UInt64, _ length: UInt32, flags: UInt16, next: UInt16 = 0,
        table: UInt64? = nil
    ) throws {
        let start = (table ?? places.descriptors.value) + 16 * UInt64(number)
        try memory.store(address, at: GuestAddress(start))
        try memory.store(length, at: GuestAddress(start + 8))
        try memory.store(flags, at: GuestAddress(start + 12))
        try memory.store(next, at: GuestAddress(start + 14))
    }

    /// Makes a chain of buffers from descriptor `head` on, in a row (modulo the queue).
    func setChain(_ head: UInt16, _ buffers: [Buffer]) throws {
        for (index, buffer) in buffers.enumerated() {
            let number = (head + UInt16(index)) % size
            let isLast = index == buffers.count - 1
            try setDescriptor(
                number, buffer.address, buffer.length,
                flags: (isLast ? 0 : Self.next) | (buffer.isWritable ? Self.write : 0),
                next: (number + 1) % size)
        }
    }

    /// Makes a chain available.
    mutating func publish(_ head: UInt16) throws {
        try memory.store(head, at: GuestAddress(places.available.value + 4 + 2 * UInt64(available % size)))
        available &+= 1
        try memory.store(available, at: GuestAddress(places.available.value + 2))
    }

    func setAvailableIndex(_ index: UInt16) throws {
        try memory.store(index, at: GuestAddress(places.available.value + 2))
    }
    func setAvailableFlags(_ flags: UInt16) throws {
        try memory.store(flags, at: GuestAddress(places.available.value))
    }
    /// The used entry after which the driver wants to be told.
    func setUsedEvent(_ index: UInt16) throws {
        try memory.store(index, at: GuestAddress(places.available.value + 4 + 2 * UInt64(size)))
    }
    func availableEvent() throws -> UInt16 {
        try memory.load(UInt16.self, at: GuestAddress(places.used.value + 4 + 8 * UInt64(size)))
    }

    /// The next chain that came back.
    mutating func takeUsed() throws -> (head: UInt32, written: UInt32)? {
        let index = try memory.load(UInt16.self, at: GuestAddress(places.used.value + 2))
        if index == lastUsed { return nil }
        let entry = places.used.value + 4 + 8 * UInt64(lastUsed % size)
        lastUsed &+= 1
        return (
            try memory.load(UInt32.self, at: GuestAddress(entry)),
            try memory.load(UInt32.self, at: GuestAddress(entry + 4))
        )
    }
}

func makeMemory(_ size: UInt64 = 1 << 20) throws -> GuestMemory {
    try GuestMemory(
        sizeInBytes: size, lowLimit: GuestAddress(0xC000_0000), highStart: GuestAddress(1 << 32))
}

/// A vCPU that devices of virtio ask nothing of.
final class NoProcessor: ProcessorContext {
    let index = 0
    func end(_ reason: GuestEnd) {}
}
