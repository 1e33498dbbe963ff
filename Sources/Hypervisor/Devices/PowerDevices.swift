internal import GuestMemory
internal import LinuxHost

/// ACPI's fixed hardware (ACPI 6.5, 4.8.3): the PM1a event and control blocks, the PM timer, and the power button.
/// Ports 0x600-0x60B.
final class ACPIPowerDevice: PortDevice {
    /// SLP_TYP of S5, as the DSDT's \_S5 package gives it.
    static let sleepTypeOff: UInt32 = 5
    /// PM timer ticks a second (ACPI 6.5, 4.8.3.3).
    static let timerFrequency: UInt64 = 3_579_545

    private enum Event {
        static let powerButton: UInt16 = 1 << 8
    }
    private struct State {
        var status: UInt16 = 0
        var enable: UInt16 = 0
        var control: UInt16 = 1  // SCI_EN: ACPI mode from the start
        var level = false
    }
    private let state = Monitor(State())
    private let setInterrupt: @Sendable (Bool) -> Void

    /// - Parameter setInterrupt: sets the level of the SCI; called under the device's lock.
    init(setInterrupt: @escaping @Sendable (Bool) -> Void) { self.setInterrupt = setInterrupt }

    /// Presses the power button once.
    func pressPowerButton() {
        state.withLock { state in
            state.status |= Event.powerButton
            updateInterrupt(&state)
        }
    }

    /// Whether the guest's ACPI driver listens to the button.
    var powerButtonIsHandled: Bool { state.withLock { $0.enable & Event.powerButton != 0 } }

    func read(offset: UInt16, size: Int, by vcpu: any ProcessorContext) -> UInt32 {
        if offset >= 8 {
            let ticks = timerTicks() >> (UInt64(offset - 8) * 8)
            return UInt32(truncatingIfNeeded: ticks)
        }
        return state.withLock { state in
            let registers = UInt64(state.status) | UInt64(state.enable) << 16 | UInt64(state.control) << 32
            return UInt32(truncatingIfNeeded: registers >> (UInt64(offset) * 8))
        }
    }

    func write(offset: UInt16, size: Int, value: UInt32, by vcpu: any ProcessorContext) {
        var off = false
        state.withLock { state in
            for byte in 0..<UInt16(size) {
                let part = UInt16(truncatingIfNeeded: value >> (UInt32(byte) * 8)) & 0xff
                switch offset + byte {
                case 0: state.status &= ~part  // write one to clear
                case 1: state.status &= ~(part << 8)
                case 2: state.enable = state.enable & 0xff00 | part
                case 3: state.enable = state.enable & 0x00ff | part << 8
                case 4: state.control = state.control & 0xff00 | part | 1
                case 5:
                    state.control = state.control & 0x00ff | (part & 0x1c) << 8
                    off = off || part & 0x20 != 0 && UInt32(part >> 2) & 7 == Self.sleepTypeOff
                default: break
                }
            }
            updateInterrupt(&state)
        }
        if off { vcpu.end(.poweredOff) }
    }

    private func updateInterrupt(_ state: inout State) {
        let wanted = state.status & state.enable != 0
        guard wanted != state.level else { return }
        state.level = wanted
        setInterrupt(wanted)
    }

    private func timerTicks() -> UInt64 {
        let now = monotonicNanoseconds()
        return now / 1_000_000_000 &* Self.timerFrequency &+ now % 1_000_000_000 &* Self.timerFrequency
            / 1_000_000_000
    }
}

/// The part of the i8042 that PCs reset by: pulse command 0xFE on port 0x64. Its status says: nothing there.
final class KeyboardController: PortDevice {
    func read(offset: UInt16, size: Int, by vcpu: any ProcessorContext) -> UInt32 { 0 }
    func write(offset: UInt16, size: Int, value: UInt32, by vcpu: any ProcessorContext) {
        if value & 0xff == 0xFE { vcpu.end(.rebooted) }
    }
}

/// The reset control register at port 0xCF9: bit 2 resets.
final class ResetControl: PortDevice {
    func read(offset: UInt16, size: Int, by vcpu: any ProcessorContext) -> UInt32 { 0 }
    func write(offset: UInt16, size: Int, value: UInt32, by vcpu: any ProcessorContext) {
        if value & 4 != 0 { vcpu.end(.rebooted) }
    }
}

/// The pvpanic device (QEMU's docs/specs/pvpanic): a read gives the events it takes, a write reports one.
final class PanicDevice: PortDevice {
    private static let panicked: UInt32 = 1
    func read(offset: UInt16, size: Int, by vcpu: any ProcessorContext) -> UInt32 { Self.panicked }
    func write(offset: UInt16, size: Int, value: UInt32, by vcpu: any ProcessorContext) {
        if value & Self.panicked != 0 { vcpu.end(.panicked) }
    }
}
