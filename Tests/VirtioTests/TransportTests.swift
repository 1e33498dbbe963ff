import GuestMemory
import Hypervisor
import Synchronization
import TestSupport
import Testing

@testable import Virtio

/// Registers by the specification's offsets (virtio 1.2, 4.2.2).
private enum Offset {
    static let deviceFeatures: UInt64 = 0x10, deviceFeaturesSelect: UInt64 = 0x14
    static let driverFeatures: UInt64 = 0x20, driverFeaturesSelect: UInt64 = 0x24
    static let queueSelect: UInt64 = 0x30, queueMaximum: UInt64 = 0x34, queueSize: UInt64 = 0x38
    static let queueReady: UInt64 = 0x44, interruptStatus: UInt64 = 0x60, acknowledge: UInt64 = 0x64
    static let status: UInt64 = 0x70
}

private final class Stand {
    let memory: GuestMemory
    let transport: MMIOTransport
    var driver: TestDriver
    private let counts: Counts
    private let processor = NoProcessor()

    private final class Counts: Sendable {
        let interrupts = Atomic(0)
        let starts = Atomic(0)
    }
    var interrupts: Int { counts.interrupts.load(ordering: .relaxed) }
    var starts: Int { counts.starts.load(ordering: .relaxed) }

    init(_ device: any VirtioDevice = EntropyDevice()) throws {
        memory = try makeMemory()
        driver = TestDriver(memory, size: 8)
        let counts = Counts()
        self.counts = counts
        transport = MMIOTransport(
            device, memory: memory, interrupt: { counts.interrupts.add(1, ordering: .relaxed) },
            started: { counts.starts.add(1, ordering: .relaxed) })
    }

    func read(_ offset: UInt64) -> UInt32 {
        UInt32(truncatingIfNeeded: transport.read(offset: offset, size: 4, by: processor))
    }
    func read(_ offset: UInt64, size: Int) -> UInt64 {
        transport.read(offset: offset, size: size, by: processor)
    }
    func write(_ offset: UInt64, _ value: UInt32) {
        transport.write(offset: offset, size: 4, value: UInt64(value), by: processor)
    }
    func write(_ offset: UInt64, _ value: UInt64, size: Int) {
        transport.write(offset: offset, size: size, value: value, by: processor)
    }

    var offered: UInt64 {
        (0..<2).reduce(0) { all, word in
            write(Offset.deviceFeaturesSelect, UInt32(word))
            return all | UInt64(read(Offset.deviceFeatures)) << UInt64(word * 32)
        }
    }

    /// 3.1.1 up to FEATURES_OK.
    /// - Returns: whether the device agreed.
    func negotiate(_ features: UInt64) -> Bool {
        write(Offset.status, 0)
        write(Offset.status, 1)
        write(Offset.status, 3)
        for word in 0..<2 {
            write(Offset.driverFeaturesSelect, UInt32(word))
            write(Offset.driverFeatures, UInt32(truncatingIfNeeded: features >> UInt64(word * 32)))
        }
        write(Offset.status, 3 | 8)
        return read(Offset.status) & 8 != 0
    }

    func setQueue(_ places: VirtQueue.Places? = nil, size: UInt32? = nil) {
        let places = places ?? driver.places
        write(Offset.queueSelect, 0)
        write(Offset.queueSize, size ?? UInt32(driver.size))
        for (offset, address) in [
            (UInt64(0x80), places.descriptors), (0x90, places.available), (0xA0, places.used),
        ] {
            write(offset, UInt32(truncatingIfNeeded: address.value))
            write(offset + 4, UInt32(truncatingIfNeeded: address.value >> 32))
        }
        write(Offset.queueReady, 1)
    }

    /// All of 3.1.1.
    func begin(_ features: UInt64? = nil) {
        #expect(negotiate(features ?? offered))
        setQueue()
        write(Offset.status, 3 | 8 | 4)
    }
}

@Suite struct TransportTests {
    @Test func theDeviceSaysWhatItIs() throws {
        let stand = try Stand()
        #expect(stand.read(0) == 0x7472_6976 && stand.read(4) == 2)
        #expect(stand.read(8) == 4, "entropy")
        #expect(stand.offered == 1 << 32 | 1 << 29 | 1 << 28)
        stand.write(Offset.deviceFeaturesSelect, 2)
        #expect(stand.read(Offset.deviceFeatures) == 0)
        stand.write(Offset.queueSelect, 0)
        #expect(stand.read(Offset.queueMaximum) == 64)
        stand.write(Offset.queueSelect, 1)
        #expect(stand.read(Offset.queueMaximum) == 0 && stand.read(Offset.queueReady) == 0)
        #expect(stand.read(0xB0) == UInt32.max && stand.read(0xB4) == UInt32.max, "no shared memory")
        #expect(stand.read(0x100, size: 1) == 0 && stand.read(0xFF8, size: 8) == 0)
    }

    @Test func whatWasNotOfferedCannotBeHad() throws {
        let stand = try Stand()
        #expect(!stand.negotiate(stand.offered | 1 << 34))
        #expect(!stand.negotiate(stand.offered & ~(1 << 32)), "a driver of the time before 1.0")
        #expect(stand.negotiate(1 << 32))
        // Fixed from now on (2.2).
        stand.write(Offset.driverFeaturesSelect, 0)
        stand.write(Offset.driverFeatures, UInt32.max)
        stand.setQueue()
        stand.write(Offset.status, 15)
        #expect(stand.read(Offset.status) == 15 && stand.starts == 1)
    }

    @Test func nothingRunsBeforeTheDriverIsReady() throws {
        let stand = try Stand()
        stand.write(Offset.status, 15)
        #expect(stand.read(Offset.status) & 4 == 0, "no DRIVER_OK without FEATURES_OK")
        #expect(stand.starts == 0)
        #expect(stand.negotiate(stand.offered))
        stand.setQueue()
        try stand.driver.setChain(0, [.init(address: 0x4000, length: 16, isWritable: true)])
        try stand.driver.publish(0)
        #expect(!stand.transport.serve(queue: 0))
        #expect(try stand.driver.takeUsed() == nil)
        stand.write(Offset.status, 15)
        #expect(stand.starts == 1)
        #expect(!stand.transport.serve(queue: 0))
        #expect(try stand.driver.takeUsed()?.written == 16)
        #expect(stand.interrupts == 1 && stand.read(Offset.interruptStatus) == 1)
        stand.write(Offset.acknowledge, 1)
        #expect(stand.read(Offset.interruptStatus) == 0)
        #expect(!stand.transport.serve(queue: 7), "a queue that there is not")
    }

    @Test func aRunningQueueCannotBeMoved() throws {
        let stand = try Stand()
        stand.begin()
        var elsewhere = stand.driver.places
        elsewhere.descriptors = GuestAddress(0)
        stand.setQueue(elsewhere, size: 2)
        try stand.driver.setChain(0, [.init(address: 0x4000, length: 16, isWritable: true)])
        try stand.driver.publish(0)
        _ = stand.transport.serve(queue: 0)
        #expect(try stand.driver.takeUsed()?.written == 16)
    }

    @Test(arguments: [
        QueueError.badSize(0), .misaligned(GuestAddress(0x1_0008), alignment: 16),
        .indexTooFar(index: 9, next: 0),
    ]) func aBrokenRuleNeedsAReset(expected: QueueError) throws {
        let stand = try Stand()
        if case .indexTooFar = expected {
            stand.begin()
            try stand.driver.setAvailableIndex(9)
            #expect(!stand.transport.serve(queue: 0))
        } else {
            #expect(stand.negotiate(stand.offered))
            var places = stand.driver.places
            if case .misaligned = expected { places.descriptors = GuestAddress(0x1_0008) }
            stand.setQueue(places, size: expected == .badSize(0) ? 65 : 8)
            stand.write(Offset.status, 15)
        }
        #expect(stand.transport.problem == expected)
        #expect(stand.read(Offset.status) & 64 != 0)
        #expect(stand.interrupts == 1 && stand.read(Offset.interruptStatus) == 2, "configuration change")
        // It serves nobody until then, and everybody after.
        try stand.driver.setAvailableIndex(0)
        #expect(!stand.transport.serve(queue: 0))
        #expect(stand.interrupts == 1)
        stand.write(Offset.status, 0)
        #expect(stand.read(Offset.status) == 0 && stand.read(Offset.interruptStatus) == 0)
        #expect(stand.transport.problem == nil)
        stand.driver = TestDriver(stand.memory, size: 8, at: 0x3_0000)
        stand.begin()
        try stand.driver.setChain(0, [.init(address: 0x4000, length: 16, isWritable: true)])
        try stand.driver.publish(0)
        _ = stand.transport.serve(queue: 0)
        #expect(try stand.driver.takeUsed()?.written == 16)
    }

    /// A driver that fills the queue again while it is served: the device comes back to it, and does not stay.
    @Test func aDriverThatNeverStopsIsServedInPieces() throws {
        let stand = try Stand(Endless())
        stand.begin()
        try stand.driver.setChain(0, [.init(address: 0x4000, length: 1, isWritable: true)])
        try stand.driver.publish(0)
        #expect(stand.transport.serve(queue: 0), "there is more")
        #expect(stand.transport.serve(queue: 0))
    }

    /// Any access to any register, of any width: nothing traps, and a reset makes it as new.
    @Test func anyAccessAtAll() throws {
        var random = SeededGenerator(for: "registers")
        let stand = try Stand()
        for turn in 0..<60_000 {
            let offset =
                random.oneIn(4)
                ? UInt64.random(in: 0..<0x1000, using: &random)
                : 4 * UInt64.random(in: 0..<0x44, using: &random)
            let size = random.oneIn(5) ? [1, 2, 8].randomElement(using: &random) ?? 1 : 4
            let value =
                random.oneIn(2)
                ? UInt64.random(in: 0..<80, using: &random)
                : UInt64.random(in: 0...UInt64.max, using: &random)
            if offset + UInt64(size) > 0x1000 { continue }
            if random.oneIn(2) {
                stand.write(offset, value, size: size)
            } else {
                _ = stand.read(offset, size: size)
            }
            if random.oneIn(10) { _ = stand.transport.serve(queue: Int.random(in: 0..<3, using: &random)) }
            if turn % 5000 == 4999 {
                stand.write(Offset.status, 0)
                stand.driver = TestDriver(stand.memory, size: 8, at: 0x1_0000 + UInt64(turn / 5000) * 0x1000)
                try stand.memory.write(
                    [UInt8](repeating: 0, count: 0x1000), at: stand.driver.places.descriptors)
                stand.begin(1 << 32)
                try stand.driver.setChain(0, [.init(address: 0x4000, length: 16, isWritable: true)])
                try stand.driver.publish(0)
                _ = stand.transport.serve(queue: 0)
                try #require(try stand.driver.takeUsed()?.written == 16)
            }
        }
    }
}

/// Whenever it is served, the driver has put in one more.
private final class Endless: VirtioDevice {
    let kind = VirtioKind.entropy
    let features: UInt64 = 0
    let queueSizes: [UInt16] = [64]
    func serve(queue index: Int, _ queue: inout VirtQueue, _ memory: GuestMemory) throws(QueueError) {
        guard let chain = try queue.pop() else { return }
        try queue.push(chain.head, written: 0)
        let index = GuestAddress(0x1_0000 + 16 * 8 + 2)
        let old = (try? memory.load(UInt16.self, at: index)) ?? 0
        try? memory.store(old &+ 1, at: index)
    }
}

@Suite struct EntropyTests {
    @Test func buffersAreFilledAndNothingElse() throws {
        let stand = try Stand()
        stand.begin()
        try stand.driver.setChain(
            0,
            [
                .init(address: 0x4000, length: 100, isWritable: true),
                .init(address: 0x5000, length: 4096, isWritable: true),
            ])
        try stand.driver.setChain(2, [.init(address: 0x7000, length: 64)])
        try stand.driver.publish(0)
        try stand.driver.publish(2)
        _ = stand.transport.serve(queue: 0)
        let first = try #require(try stand.driver.takeUsed())
        #expect(first == (0, UInt32(EntropyDevice.limit)), "a page at once")
        let second = try #require(try stand.driver.takeUsed())
        #expect(second == (2, 0), "nothing that it may write")
        #expect(try stand.memory.read(GuestAddress(0x7000), count: 64).allSatisfy { $0 == 0 })
        let bytes =
            try stand.memory.read(GuestAddress(0x4000), count: 100)
            + stand.memory.read(GuestAddress(0x5000), count: 3996)
        // 4096 random bytes have all 256 values but for one time in 35 000, and each about 16 times.
        #expect(Set(bytes).count > 250)
        #expect(try stand.memory.read(GuestAddress(0x4000 + 100), count: 100).allSatisfy { $0 == 0 })
        #expect(try stand.memory.read(GuestAddress(0x5000 + 3996), count: 100).allSatisfy { $0 == 0 })
        #expect(stand.memory.dirtyBitmap.isMarked(4) && stand.memory.dirtyBitmap.isMarked(5))
        #expect((0..<256).allSatisfy { stand.memory.inFlight.count($0) == 0 })
    }
}
