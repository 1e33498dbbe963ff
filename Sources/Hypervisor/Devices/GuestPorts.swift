internal import GuestMemory
internal import LinuxHost
internal import Synchronization

/// What the ports of a payload keep for one vCPU. Only that vCPU's thread uses it.
final class PayloadProcessor: Sendable {
    /// High half of the clock as the guest last latched it.
    let latchedClock = Atomic<UInt32>(0)
    /// When the sleep that the guest asked for ends (monotonic nanoseconds); 0: it asked for none. A pause or the end of the
    /// guest interrupts it.
    let sleepDeadline = Atomic<UInt64>(0)
}

/// Mingle's own ports (guests/README.md): exit, doorbell, sleep, clock.
final class GuestPorts: PortDevice {
    /// What guests said at the doorbell, with the times.
    private let doorbell: @Sendable (_ number: UInt32, _ vcpu: Int) -> Void

    private let processors: [PayloadProcessor]

    /// - Parameters:
    ///   - doorbell: called on the vCPU's thread; must not block.
    ///   - processors: one for each vCPU, by its index.
    init(doorbell: @escaping @Sendable (UInt32, Int) -> Void, processors: [PayloadProcessor]) {
        (self.doorbell, self.processors) = (doorbell, processors)
    }

    func read(offset: UInt16, size: Int, by vcpu: any ProcessorContext) -> UInt32 {
        switch offset {
        case 0x0C where size == 4:
            let now = monotonicNanoseconds()
            processors[vcpu.index].latchedClock.store(
                UInt32(truncatingIfNeeded: now >> 32), ordering: .relaxed)
            return UInt32(truncatingIfNeeded: now)
        case 0x10 where size == 4: return processors[vcpu.index].latchedClock.load(ordering: .relaxed)
        default: return UInt32.max
        }
    }

    func write(offset: UInt16, size: Int, value: UInt32, by vcpu: any ProcessorContext) {
        switch offset {
        case 0x00 where size == 1 || size == 4: vcpu.end(.exited(UInt8(truncatingIfNeeded: value)))
        case 0x04 where size == 4: doorbell(value, vcpu.index)
        case 0x08 where size == 4:
            processors[vcpu.index].sleepDeadline.store(
                monotonicNanoseconds() + UInt64(value) * 1000, ordering: .relaxed)
        default: break
        }
    }
}
