import GuestMemory
import TestSupport
import Testing

@testable import Virtio

@Suite struct QueueTests {
    private func range(_ start: UInt64, _ size: UInt64) throws -> GuestRange {
        try #require(GuestRange(start: GuestAddress(start), sizeInBytes: size))
    }

    @Test func chainsComeAndGoInOrderAroundTheRing() throws {
        let memory = try makeMemory()
        var driver = TestDriver(memory, size: 4)
        var queue = try driver.queue()
        #expect(try queue.pop() == nil)
        // More turns than the indices have bits would need; enough to go round the ring often.
        for turn in 0..<UInt16(100) {
            let head = turn % 4
            try driver.setChain(
                head,
                [
                    .init(address: 0x2000, length: 16), .init(address: 0x3000 + UInt64(turn), length: 1),
                    .init(address: 0x4000, length: 100, isWritable: true),
                ])
            try driver.publish(head)
            let chain = try #require(try queue.pop())
            #expect(chain.head == head)
            #expect(try chain.readable == [range(0x2000, 16), range(0x3000 + UInt64(turn), 1)])
            #expect(try chain.writable == [range(0x4000, 100)])
            #expect(chain.readableBytes == 17 && chain.writableBytes == 100)
            #expect(try queue.pop() == nil)
            try queue.push(chain.head, written: UInt32(turn))
            let used = try #require(try driver.takeUsed())
            #expect(used == (UInt32(head), UInt32(turn)))
            #expect(try driver.takeUsed() == nil)
        }
    }

    @Test func indicesWrap() throws {
        let memory = try makeMemory()
        var driver = TestDriver(memory, size: 2)
        var queue = try driver.queue()
        try driver.setChain(1, [.init(address: 0x2000, length: 8, isWritable: true)])
        for turn in 0..<70_000 {
            try driver.publish(1)
            let chain = try #require(try queue.pop())
            try queue.push(chain.head, written: UInt32(turn))
            try #require(try driver.takeUsed()?.written == UInt32(turn))
        }
    }

    @Test func indirectTables() throws {
        let memory = try makeMemory()
        var driver = TestDriver(memory, size: 4)
        var queue = try driver.queue(features: VirtQueue.indirectDescriptors)
        try driver.setDescriptor(0, 0x8000, 4, flags: TestDriver.next, next: 1)
        try driver.setDescriptor(1, 0x6000, 48, flags: TestDriver.indirect)
        try driver.setDescriptor(0, 0x9000, 5, flags: TestDriver.next, next: 2, table: 0x6000)
        try driver.setDescriptor(2, 0xA000, 6, flags: TestDriver.write, table: 0x6000)
        try driver.publish(0)
        let chain = try #require(try queue.pop())
        #expect(try chain.readable == [range(0x8000, 4), range(0x9000, 5)])
        #expect(try chain.writable == [range(0xA000, 6)])
    }

    /// Each rule that a driver can break, and what is said of it.
    @Test func aBrokenRuleIsNamed() throws {
        typealias Step = (inout TestDriver) throws -> Void
        let (next, write, indirect) = (TestDriver.next, TestDriver.write, TestDriver.indirect)
        let end: UInt64 = 1 << 20
        let cases: [(QueueError, Step)] = [
            (.indexTooFar(index: 5, next: 0), { try $0.setAvailableIndex(5) }),
            (.indexTooFar(index: 0xFFFF, next: 0), { try $0.setAvailableIndex(0xFFFF) }),
            (.noDescriptor(4), { try $0.publish(4) }),
            (
                .noDescriptor(0xFFFF),
                {
                    try $0.setDescriptor(0, 0x2000, 1, flags: next, next: 0xFFFF)
                    try $0.publish(0)
                }
            ),
            (
                .chainTooLong,
                {
                    try $0.setDescriptor(0, 0x2000, 1, flags: next, next: 1)
                    try $0.setDescriptor(1, 0x2000, 1, flags: next, next: 0)
                    try $0.publish(0)
                }
            ),
            (
                .chainTooLong,
                {
                    try $0.setDescriptor(3, 0x2000, 1, flags: next, next: 3)
                    try $0.publish(3)
                }
            ),
            (
                .emptyBuffer,
                {
                    try $0.setDescriptor(0, 0x2000, 0, flags: 0)
                    try $0.publish(0)
                }
            ),
            (
                .readableBehindWritable,
                {
                    try $0.setDescriptor(0, 0x2000, 1, flags: next | write, next: 1)
                    try $0.setDescriptor(1, 0x2000, 1, flags: 0)
                    try $0.publish(0)
                }
            ),
            (
                .notMemory(GuestAddress(end - 1), bytes: 2),
                {
                    try $0.setDescriptor(0, end - 1, 2, flags: 0)
                    try $0.publish(0)
                }
            ),
            (
                .notMemory(GuestAddress(UInt64.max), bytes: 0xffff_ffff),
                {
                    try $0.setDescriptor(0, UInt64.max, 0xffff_ffff, flags: write)
                    try $0.publish(0)
                }
            ),
            (
                .badIndirectTable,  // none within another
                {
                    try $0.setDescriptor(0, 0x6000, 16, flags: indirect)
                    try $0.setDescriptor(0, 0x6000, 16, flags: indirect, table: 0x6000)
                    try $0.publish(0)
                }
            ),
            (
                .badIndirectTable,
                {
                    try $0.setDescriptor(0, 0x6000, 17, flags: indirect)
                    try $0.publish(0)
                }
            ),
            (
                .badIndirectTable,
                {
                    try $0.setDescriptor(0, 0x6000, 0, flags: indirect)
                    try $0.publish(0)
                }
            ),
            (
                .badIndirectTable,
                {
                    try $0.setDescriptor(0, 0x6000, 16, flags: indirect | next, next: 1)
                    try $0.publish(0)
                }
            ),
            (
                .notMemory(GuestAddress(end - 16), bytes: 32),
                {
                    try $0.setDescriptor(0, end - 16, 32, flags: indirect)
                    try $0.publish(0)
                }
            ),
            (
                .noDescriptor(2),
                {
                    try $0.setDescriptor(0, 0x6000, 32, flags: indirect)
                    try $0.setDescriptor(0, 0x2000, 1, flags: next, next: 2, table: 0x6000)
                    try $0.publish(0)
                }
            ),
            (
                .chainTooLong,  // longer than the queue, in a table that is longer still
                {
                    try $0.setDescriptor(0, 0x6000, 16 * 8, flags: indirect)
                    for number in UInt16(0)..<8 {
                        try $0.setDescriptor(
                            number, 0x2000, 1, flags: number < 7 ? next : 0, next: number + 1, table: 0x6000)
                    }
                    try $0.publish(0)
                }
            ),
        ]
        for (expected, step) in cases {
            var driver = TestDriver(try makeMemory(), size: 4)
            var queue = try driver.queue(features: VirtQueue.indirectDescriptors)
            try step(&driver)
            #expect(throws: expected) { try queue.pop() }
        }
        var driver = TestDriver(try makeMemory(), size: 4)
        var queue = try driver.queue()
        try driver.setDescriptor(0, 0x6000, 16, flags: indirect)
        try driver.publish(0)
        #expect(throws: QueueError.badIndirectTable) { try queue.pop() }
    }

    @Test func partsMustBeAlignedMemory() throws {
        let memory = try makeMemory()
        let good = TestDriver(memory, size: 8).places
        func attempt(_ size: UInt16 = 8, _ change: (inout VirtQueue.Places) -> Void) throws {
            var places = good
            change(&places)
            _ = try VirtQueue(memory: memory, size: size, places: places, features: 0)
        }
        try attempt { _ in }
        for size in [UInt16(0), 3, 0x8001, 0xFFFF] {
            #expect(throws: QueueError.badSize(size)) { try attempt(size) { _ in } }
        }
        #expect(throws: QueueError.misaligned(GuestAddress(0x1_0008), alignment: 16)) {
            try attempt { $0.descriptors = GuestAddress(0x1_0008) }
        }
        #expect(throws: QueueError.misaligned(GuestAddress(0x1_0001), alignment: 2)) {
            try attempt { $0.available = GuestAddress(0x1_0001) }
        }
        #expect(throws: QueueError.misaligned(GuestAddress(0x1_0002), alignment: 4)) {
            try attempt { $0.used = GuestAddress(0x1_0002) }
        }
        let end = memory.sizeInBytes
        #expect(throws: QueueError.notMemory(GuestAddress(end - 112), bytes: 128)) {
            try attempt { $0.descriptors = GuestAddress(end - 112) }
        }
        #expect(throws: QueueError.notMemory(GuestAddress(end - 20), bytes: 22)) {
            try attempt { $0.available = GuestAddress(end - 20) }
        }
        #expect(throws: QueueError.notMemory(GuestAddress(~UInt64(3)), bytes: 70)) {
            try attempt { $0.used = GuestAddress(~UInt64(3)) }
        }
    }

    @Test func interruptsAreWantedOrNot() throws {
        let memory = try makeMemory()
        var driver = TestDriver(memory, size: 8)
        var queue = try driver.queue()
        #expect(try !queue.takeInterrupt(), "nothing was given back")
        try queue.push(0, written: 0)
        #expect(try queue.takeInterrupt())
        #expect(try !queue.takeInterrupt(), "it was told")
        try driver.setAvailableFlags(1)
        try queue.push(0, written: 0)
        #expect(try !queue.takeInterrupt())

        // The event index, against the specification's sentence: told when the entry that it names was passed.
        var random = SeededGenerator(for: "event index")
        driver = TestDriver(memory, size: 8, at: 0x2_0000)
        queue = try driver.queue(features: VirtQueue.eventIndex)
        var told: UInt64 = 0
        var used: UInt64 = 0
        for _ in 0..<40_000 {
            let event = used &+ UInt64.random(in: 0..<12, using: &random) &- 4
            try driver.setUsedEvent(UInt16(truncatingIfNeeded: event))
            for _ in 0..<Int.random(in: 0..<5, using: &random) {
                try queue.push(0, written: 0)
                used += 1
            }
            // The entries told to be done now are numbers told..<used.
            let wanted = (told..<used).contains {
                UInt16(truncatingIfNeeded: $0) == UInt16(truncatingIfNeeded: event)
            }
            try #require(try queue.takeInterrupt() == wanted)
            told = used
        }
    }

    @Test func notificationsAreAskedForWithoutMissingAny() throws {
        let memory = try makeMemory()
        var driver = TestDriver(memory, size: 8)
        var queue = try driver.queue(features: VirtQueue.eventIndex)
        try driver.setChain(0, [.init(address: 0x2000, length: 8)])
        #expect(try !queue.rearm())
        #expect(try driver.availableEvent() == 0)
        try driver.publish(0)
        #expect(try queue.rearm(), "one came already")
        _ = try queue.pop()
        #expect(try !queue.rearm())
        #expect(try driver.availableEvent() == 1)
    }

    /// Whatever stands in memory: a chain that comes out is all RAM and no longer than the queue, and nothing traps or never ends.
    @Test func anyBytesAtAll() throws {
        var random = SeededGenerator(for: "hostile queue")
        let size: UInt64 = 64 << 10
        let memory = try makeMemory(size)
        var chains = 0
        for _ in 0..<3000 {
            let driver = TestDriver(memory, size: 1 << UInt16.random(in: 0...5, using: &random), at: 0x8000)
            let features = random.oneIn(2) ? VirtQueue.indirectDescriptors | VirtQueue.eventIndex : 0
            var queue = try driver.queue(features: features)
            // Descriptors that are half right, so that chains get long.
            for number in 0..<driver.size {
                let flags = UInt16.random(in: 0..<8, using: &random)
                try driver.setDescriptor(
                    number, UInt64.random(in: 0..<size + 4096, using: &random),
                    random.oneIn(4)
                        ? UInt32.random(in: 0...UInt32.max, using: &random)
                        : 16 * UInt32.random(in: 0...64, using: &random),
                    flags: random.oneIn(3) ? flags : flags & TestDriver.next,
                    next: UInt16.random(in: 0...driver.size, using: &random))
                let entry = driver.places.available.value + 4 + 2 * UInt64(number)
                try memory.store(UInt16.random(in: 0...driver.size, using: &random), at: GuestAddress(entry))
            }
            try driver.setAvailableIndex(UInt16.random(in: 0...driver.size + 1, using: &random))
            do {
                while let chain = try queue.pop() {
                    chains += 1
                    let all = chain.readable + chain.writable
                    try #require(all.allSatisfy { memory.isRAM($0) && $0.sizeInBytes > 0 })
                    try #require(all.count <= Int(driver.size) && !all.isEmpty)
                    try queue.push(chain.head, written: 0)
                }
            } catch is QueueError {}
            _ = try? queue.takeInterrupt()
            _ = try? queue.rearm()
        }
        #expect(chains > 300, "most of the memory was not hostile enough to be refused at once")
    }
}
