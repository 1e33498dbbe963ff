import Synchronization
import Testing

@testable import GuestMemory
@testable import LinuxHost
@testable import Hypervisor

@Suite struct GuestPortsTests {
    /// guests/README.md, "Ports": offsets from 0xD00, and the widths that count.
    @Test func onlyTheDocumentedWidthsCount() {
        let rung = FakeRecord<[UInt32]>([])
        let processors = (0..<4).map { _ in PayloadProcessor() }
        let ports = GuestPorts(
            doorbell: { number, vcpu in rung.update { $0 += [number, UInt32(vcpu)] } }, processors: processors
        )
        let vcpu = FakeProcessor(3)
        /// The sleeps that were asked for since the last call, of vCPU 3.
        func sleeps() -> Int {
            processors[3].sleepDeadline.exchange(0, ordering: .relaxed) == 0 ? 0 : 1
        }
        for offset in UInt16(0)..<0x20 {
            for size in [1, 2, 4] {
                let isDefined = [(0, 1), (0, 4), (4, 4), (8, 4)].contains { $0 == (Int(offset), size) }
                let before = (vcpu.ends.count, 0, rung.value.count)
                ports.write(offset: offset, size: size, value: 0x1234_5607, by: vcpu)
                let after = (vcpu.ends.count, sleeps(), rung.value.count)
                #expect((before != after) == isDefined, "offset \(offset), \(size) bytes")
            }
        }
        #expect(vcpu.ends == [.exited(7), .exited(7)], "the low 8 bits")
        let before = monotonicNanoseconds()
        ports.write(offset: 8, size: 4, value: 0x1234_5607, by: vcpu)
        let deadline = processors[3].sleepDeadline.load(ordering: .relaxed)
        #expect((before...monotonicNanoseconds()).contains(deadline - 0x1234_5607 * 1000))
        #expect(processors[..<3].allSatisfy { $0.sleepDeadline.load(ordering: .relaxed) == 0 })
        #expect(rung.value == [0x1234_5607, 3])
    }

    @Test func theClockLatchesItsHighHalfPerProcessor() {
        let processors = [PayloadProcessor(), PayloadProcessor()]
        let ports = GuestPorts(doorbell: { _, _ in }, processors: processors)
        let (first, second) = (FakeProcessor(0), FakeProcessor(1))
        let before = monotonicNanoseconds()
        let low = ports.read(offset: 0x0C, size: 4, by: first)
        let after = monotonicNanoseconds()
        let time = UInt64(ports.read(offset: 0x10, size: 4, by: first)) << 32 | UInt64(low)
        #expect((before...after).contains(time))
        #expect(ports.read(offset: 0x10, size: 4, by: second) == 0)
        processors[0].latchedClock.store(77, ordering: .relaxed)
        #expect(ports.read(offset: 0x10, size: 4, by: first) == 77, "as latched, not as it is now")
        for (offset, size) in [
            (UInt16(0x0C), 1), (0x0C, 2), (0x10, 2), (0, 4), (4, 4), (8, 4), (0x0D, 4), (0x14, 4),
        ] {
            #expect(ports.read(offset: offset, size: size, by: first) == UInt32.max)
        }
        #expect(processors[0].latchedClock.load(ordering: .relaxed) == 77)
    }
}

@Suite struct BusTests {
    private final class Echo: PortDevice, MemoryDevice {
        let writes = FakeRecord<[UInt64]>([])
        func read(offset: UInt16, size: Int, by vcpu: any ProcessorContext) -> UInt32 {
            0xAABB_CC00 | UInt32(offset)
        }
        func write(offset: UInt16, size: Int, value: UInt32, by vcpu: any ProcessorContext) {
            writes.update { $0 += [UInt64(offset), UInt64(size), UInt64(value)] }
        }
        func read(offset: UInt64, size: Int, by vcpu: any ProcessorContext) -> UInt64 {
            offset << 8 | UInt64(size)
        }
        func write(offset: UInt64, size: Int, value: UInt64, by vcpu: any ProcessorContext) {
            writes.update { $0 += [offset, UInt64(size), value] }
        }
    }

    @Test func unclaimedPortsReadAllOnes() {
        let (echo, vcpu) = (Echo(), FakeProcessor())
        let bus = Bus([DeviceDescription(ports: [.init(0x100, 4, echo), .init(0xFFFF, 1, echo)])])
        for port in [UInt16(0), 0xFF, 0x104, 0xFFFE] {
            #expect(bus.read(port: port, size: 1, by: vcpu) == 0xFF)
            #expect(bus.read(port: port, size: 2, by: vcpu) == 0xFFFF)
            #expect(bus.read(port: port, size: 4, by: vcpu) == 0xFFFF_FFFF)
            bus.write(port: port, size: 1, value: 1, by: vcpu)
        }
        #expect(echo.writes.value.isEmpty)
        #expect(bus.read(port: 0x103, size: 1, by: vcpu) == 0x03)
        #expect(bus.read(port: 0x103, size: 2, by: vcpu) == 0xCC03)
        #expect(bus.read(port: 0x100, size: 4, by: vcpu) == 0xAABB_CC00)
        #expect(bus.read(port: 0xFFFF, size: 1, by: vcpu) == 0)
        bus.write(port: 0x102, size: 2, value: 0x1234, by: vcpu)
        #expect(echo.writes.value == [2, 2, 0x1234])
    }

    @Test func memoryWindowsTakeWholeAccessesOnly() throws {
        let (echo, vcpu) = (Echo(), FakeProcessor())
        let range = try #require(GuestRange(start: GuestAddress(0xD000_0000), sizeInBytes: 0x1000))
        let bus = Bus([DeviceDescription(windows: [.init(range, echo)])])
        #expect(bus.read(GuestAddress(0xD000_0FF8), size: 8, by: vcpu) == 0xFF8 << 8 | 8)
        #expect(bus.read(GuestAddress(0xD000_0FF9), size: 8, by: vcpu) == UInt64.max)
        #expect(bus.read(GuestAddress(0xCFFF_FFFF), size: 2, by: vcpu) == UInt64.max)
        #expect(bus.read(GuestAddress(UInt64.max), size: 8, by: vcpu) == UInt64.max)
        bus.write(GuestAddress(0xD000_0FFF), size: 2, value: 1, by: vcpu)
        bus.write(GuestAddress(0xD000_0004), size: 4, value: 9, by: vcpu)
        #expect(echo.writes.value == [4, 4, 9])
    }

    @Test func overlappingWindowsAreRefused() async {
        await #expect(processExitsWith: .failure) {
            let first = DeviceDescription(ports: [.init(0x100, 4, ResetControl())])
            _ = Bus([first, DeviceDescription(ports: [.init(0x103, 1, ResetControl())])])
        }
        await #expect(processExitsWith: .failure) {
            if let range = GuestRange(start: GuestAddress(0x1000), sizeInBytes: 0x1000) {
                let silent = DeviceDescription(windows: [.init(range, Silent())])
                _ = Bus([silent, silent])
            }
        }
        _ = Bus([
            DeviceDescription(ports: [.init(0x104, 4, ResetControl()), .init(0x100, 4, ResetControl())])
        ])
    }
}

private final class Silent: MemoryDevice {
    func read(offset: UInt64, size: Int, by vcpu: any ProcessorContext) -> UInt64 { 0 }
    func write(offset: UInt64, size: Int, value: UInt64, by vcpu: any ProcessorContext) {}
}

/// A value that several may change.
final class FakeRecord<Value: Sendable>: Sendable {
    private let stored: Mutex<Value>
    init(_ value: Value) { stored = Mutex(value) }
    var value: Value { stored.withLock { $0 } }
    func update(_ change: (inout Value) -> Void) { stored.withLock { change(&$0) } }
}
