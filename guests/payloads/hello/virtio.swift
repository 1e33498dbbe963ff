import Machine
import PayloadSupport

/// A driver for an entropy device (virtio 1.2, 3.1, 4.2.2, 5.4), as small as it can be: one queue of one descriptor.
struct EntropyDriver {
    private enum Register {
        static let deviceID: UInt64 = 0x008
        static let driverFeatures: UInt64 = 0x020, driverFeaturesSelect: UInt64 = 0x024
        static let queueSelect: UInt64 = 0x030, queueSize: UInt64 = 0x038, queueReady: UInt64 = 0x044
        static let queueNotify: UInt64 = 0x050
        static let interruptStatus: UInt64 = 0x060, interruptAcknowledge: UInt64 = 0x064
        static let status: UInt64 = 0x070
        static let descriptors: UInt64 = 0x080, available: UInt64 = 0x090, used: UInt64 = 0x0A0
    }

    /// Of the device's window.
    let window: UInt64
    /// A page for the queue, and one for what the device writes.
    let queue: UInt64
    var buffer: UInt64 { queue + 4096 }
    private var availableRing: UInt64 { queue + 16 }
    private var usedRing: UInt64 { queue + 64 }

    private func read(_ register: UInt64) -> UInt32 { machine_device_load32(window + register) }
    private func write(_ register: UInt64, _ value: UInt32) {
        machine_device_store32(window + register, value)
    }
    private func write64(_ register: UInt64, _ value: UInt64) {
        write(register, UInt32(truncatingIfNeeded: value))
        write(register + 4, UInt32(truncatingIfNeeded: value >> 32))
    }

    /// - Returns: false when there is no such device, or it does not agree.
    func begin() -> Bool {
        guard read(0) == 0x7472_6976, read(Register.deviceID) == 4 else { return false }
        write(Register.status, 0)
        write(Register.status, 1 | 2)
        write(Register.driverFeaturesSelect, 1)
        write(Register.driverFeatures, 1)  // VERSION_1 alone
        write(Register.status, 1 | 2 | 8)
        guard read(Register.status) & 8 != 0 else { return false }
        write(Register.queueSelect, 0)
        write(Register.queueSize, 1)
        write64(Register.descriptors, queue)
        write64(Register.available, availableRing)
        write64(Register.used, usedRing)
        write(Register.queueReady, 1)
        write(Register.status, 1 | 2 | 8 | 4)
        return read(Register.status) == 15
    }

    /// Asks for random bytes, and waits until they are there.
    /// - Parameters: the request's number, from 0; how many bytes, 4096 at most.
    /// - Returns: how many came.
    func request(_ number: UInt16, _ count: UInt32) -> UInt32 {
        machine_store64(queue, buffer)
        machine_store32(queue + 8, count)
        machine_store32(queue + 12, 2)  // to be written by the device; no next
        machine_store16(availableRing + 4, 0)
        machine_store16(availableRing + 2, number &+ 1)
        write(Register.queueNotify, 0)
        while machine_load16(usedRing + 2) != number &+ 1 { machine_pause() }
        return machine_load32(usedRing + 8)
    }

    /// What the device says of its interrupt, which is acknowledged.
    func takeInterruptStatus() -> UInt32 {
        let status = read(Register.interruptStatus)
        write(Register.interruptAcknowledge, status)
        return status
    }
}

extension Hello {
    func takeEntropy() {
        let driver = EntropyDriver(window: address, queue: guest.freePages.address(of: 0))
        guard driver.begin() else { guest.fail("no entropy device at \(hex: address)") }
        say("hello: entropy queue at \(hex: driver.queue)")
        for number in UInt64(0)..<pages {
            let count = driver.request(UInt16(truncatingIfNeeded: number), 4096)
            var differing: UInt64 = 0
            for offset in UInt64(1)..<4096
            where machine_load8(driver.buffer + offset) != machine_load8(driver.buffer + offset - 1) {
                differing += 1
            }
            let first = machine_load64(driver.buffer)
            let status = driver.takeInterruptStatus()
            say(
                "hello: entropy count=\(UInt64(count)) differing=\(differing) first=\(hex: first) interrupt=\(UInt64(status))"
            )
        }
    }
}
