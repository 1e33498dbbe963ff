internal import GuestMemory
internal import LinuxHost

/// Mingle's own ports (guests/README.md): exit, doorbell, sleep, clock.
final class GuestPorts: PortDevice {
    /// What guests said at the doorbell, with the times.
    private let doorbell: @Sendable (_ number: UInt32, _ vcpu: Int) -> Void

    /// - Parameter doorbell: called on the vCPU's thread; must not block.
    init(doorbell: @escaping @Sendable (UInt32, Int) -> Void) { self.doorbell = doorbell }

    func read(offset: UInt16, size: Int, by vcpu: any ProcessorContext) -> UInt32 {
        switch offset {
        case 0x0C where size == 4:
            let now = monotonicNanoseconds()
            vcpu.latchedClock = UInt32(truncatingIfNeeded: now >> 32)
            return UInt32(truncatingIfNeeded: now)
        case 0x10 where size == 4: return vcpu.latchedClock
        default: return UInt32.max
        }
    }

    func write(offset: UInt16, size: Int, value: UInt32, by vcpu: any ProcessorContext) {
        switch offset {
        case 0x00 where size == 1 || size == 4: vcpu.end(.exited(UInt8(truncatingIfNeeded: value)))
        case 0x04 where size == 4: doorbell(value, vcpu.index)
        case 0x08 where size == 4: vcpu.sleep(microseconds: value)
        default: break
        }
    }
}
