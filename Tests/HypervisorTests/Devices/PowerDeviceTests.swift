import Testing

@testable import GuestMemory
@testable import LinuxHost
@testable import Hypervisor

@Suite struct ACPIPowerDeviceTests {
    private let line = FakeLine()
    private let vcpu = FakeProcessor()
    private let device: ACPIPowerDevice

    init() {
        let line = line
        device = ACPIPowerDevice(setInterrupt: { line.set($0) })
    }
    private func get(_ offset: UInt16, _ size: Int) -> UInt32 {
        device.read(offset: offset, size: size, by: vcpu) & UInt32.max >> UInt32(32 - 8 * size)
    }
    private func set(_ offset: UInt16, _ size: Int, _ value: UInt32) {
        device.write(offset: offset, size: size, value: value, by: vcpu)
    }

    @Test func theButtonRaisesTheInterruptUntilItsStatusIsCleared() {
        #expect(get(4, 2) == 1, "SCI_EN")
        #expect(!device.powerButtonIsHandled)
        device.pressPowerButton()
        #expect(get(0, 2) == 0x100 && !line.level, "not enabled yet")
        set(2, 2, 0x100)
        #expect(device.powerButtonIsHandled && line.level && get(2, 2) == 0x100)
        set(0, 2, 0x0FF)
        #expect(get(0, 2) == 0x100, "zeros clear nothing")
        set(0, 2, 0x100)
        #expect(get(0, 2) == 0 && !line.level)
        device.pressPowerButton()
        #expect(line.level)
        set(2, 2, 0)
        #expect(!line.level && get(0, 2) == 0x100)
        #expect(line.history == [true, false, true, false])
    }

    @Test func partsOfRegisters() {
        device.pressPowerButton()
        #expect(get(0, 1) == 0 && get(1, 1) == 1)
        set(1, 1, 1)
        #expect(get(0, 2) == 0)
        set(3, 1, 1)
        #expect(get(0, 4) == 0x0100_0000, "status and enable together")
        device.pressPowerButton()
        #expect(get(0, 4) == 0x0100_0100)
        set(0, 4, 0x0020_0100)
        #expect(get(0, 4) == 0x0020_0000, "one access clears the status and sets the enable register")
        set(2, 1, 0x21)
        #expect(get(2, 2) == 0x21)
    }

    @Test func sleepFiveTurnsOff() {
        for type in UInt32(0)..<8 where type != 5 { set(4, 2, type << 10 | 1 << 13) }
        set(4, 2, 5 << 10)
        #expect(vcpu.ends.isEmpty, "another sleep type, or no SLP_EN")
        #expect(get(4, 2) == 5 << 10 | 1, "SCI_EN stays, SLP_EN reads as 0")
        set(4, 2, 5 << 10 | 1 << 13)
        #expect(vcpu.ends == [.poweredOff])
        #expect(get(4, 2) & 1 << 13 == 0)
        set(5, 1, 0x34)
        #expect(vcpu.ends == [.poweredOff, .poweredOff], "by the upper byte alone")
        set(4, 1, 0x34)
        #expect(vcpu.ends.count == 2)
    }

    @Test func theTimerTicksAt3579545Hz() {
        let frequency = ACPIPowerDevice.timerFrequency
        #expect(frequency == 3_579_545)
        func expectation() -> UInt64 {
            let now = monotonicNanoseconds()
            return now / 1_000_000_000 * frequency + now % 1_000_000_000 * frequency / 1_000_000_000
        }
        var last = get(8, 4)
        for _ in 0..<100 {
            let before = UInt32(truncatingIfNeeded: expectation())
            let ticks = get(8, 4)
            let after = UInt32(truncatingIfNeeded: expectation())
            #expect(ticks &- before <= after &- before, "within the two looks at the clock")
            #expect(ticks &- last < 1 << 31, "never backwards")
            last = ticks
        }
        let (low, word, high) = (get(8, 4), get(10, 2), get(8, 4))
        #expect(word == low >> 16 || word == high >> 16, "the upper half alone")
        set(8, 4, 0)
        #expect(vcpu.ends.isEmpty && get(6, 2) == 0)
    }
}

@Suite struct ResetAndPanicTests {
    @Test func theKeyboardControllerResets() {
        let (device, vcpu) = (KeyboardController(), FakeProcessor())
        #expect(device.read(offset: 0, size: 1, by: vcpu) == 0)
        for command in UInt32(0)..<0xFE { device.write(offset: 0, size: 1, value: command, by: vcpu) }
        device.write(offset: 0, size: 1, value: 0xFF, by: vcpu)
        #expect(vcpu.ends.isEmpty)
        device.write(offset: 0, size: 1, value: 0xFE, by: vcpu)
        #expect(vcpu.ends == [.rebooted])
    }

    @Test func theResetPortResetsByBit2() {
        let (device, vcpu) = (ResetControl(), FakeProcessor())
        device.write(offset: 0, size: 1, value: 0x02, by: vcpu)
        #expect(vcpu.ends.isEmpty)
        device.write(offset: 0, size: 1, value: 0x06, by: vcpu)
        #expect(vcpu.ends == [.rebooted])
        device.write(offset: 0, size: 1, value: 0x04, by: vcpu)
        #expect(vcpu.ends.count == 2, "the value that the FADT gives")
    }

    @Test func thePanicDeviceTakesPanicsOnly() {
        let (device, vcpu) = (PanicDevice(), FakeProcessor())
        #expect(device.read(offset: 0, size: 1, by: vcpu) == 1)
        device.write(offset: 0, size: 1, value: 2, by: vcpu)
        #expect(vcpu.ends.isEmpty)
        device.write(offset: 0, size: 1, value: 1, by: vcpu)
        #expect(vcpu.ends == [.panicked])
    }
}
