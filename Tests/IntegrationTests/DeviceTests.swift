import Foundation
import GuestMemory
import LinuxHost
import Synchronization
import Testing

@testable import Hypervisor

extension HostKVM {
    @Suite("Ports and device memory")
    struct DeviceTests {
        @Test("port accesses of every width reach the device, with offset, size and value")
        func ports() throws {
            let device = RecordingDevice()
            let devices = [DeviceDescription(ports: [.init(0x2000, 16, device)])]
            let guest = try TestGuest("hello", "do=port port=2004", devices: devices)
            try guest.start()
            #expect(try guest.end() == .exited(0))
            #expect(
                guest.text.contains("hello: port port=0x2004 read8=0x14 read16=0x2414 read32=0x44342414\n"))
            #expect(
                device.accesses == [
                    .init(false, 4, 1, 0), .init(false, 4, 2, 0), .init(false, 4, 4, 0),
                    .init(true, 4, 1, 0x11), .init(true, 4, 2, 0x2211), .init(true, 4, 4, 0x4433_2211),
                ])
        }

        @Test(
            "device memory accesses of every width reach the device", arguments: [0xC000_0000, 0xD000_0010])
        func memory(address: UInt64) throws {
            let device = RecordingDevice()
            let start = GuestAddress(address & ~0xfff)
            let range = try #require(GuestRange(start: start, sizeInBytes: 4096))
            let devices = [DeviceDescription(windows: [.init(range, device)])]
            let text = String(address, radix: 16)
            let guest = try TestGuest("hello", "do=mmio addr=\(text)", devices: devices)
            try guest.start()
            #expect(try guest.end() == .exited(0))
            #expect(
                guest.text.contains(
                    "read8=0x14 read16=0x2414 read32=0x44342414 read64=0x8474645444342414\n"), "\(guest.text)"
            )
            let offset = address & 0xfff
            #expect(
                device.accesses == [
                    .init(false, offset, 1, 0), .init(false, offset, 2, 0), .init(false, offset, 4, 0),
                    .init(false, offset, 8, 0), .init(true, offset, 1, 0x11), .init(true, offset, 2, 0x2211),
                    .init(true, offset, 4, 0x4433_2211), .init(true, offset, 8, 0x8877_6655_4433_2211),
                ])
        }

        @Test(
            "where no device is, reads give ones and writes go nowhere",
            arguments: ["port port=2004", "mmio"])
        func nobody(action: String) throws {
            let device = RecordingDevice()
            let devices = [DeviceDescription(ports: [.init(0x2008, 8, device)])]
            let guest = try TestGuest("hello", "do=\(action)", devices: devices)
            try guest.start()
            #expect(try guest.end() == .exited(0))
            #expect(guest.text.contains("read8=0xff read16=0xffff read32=0xffffffff"))
            #expect(device.accesses.isEmpty)
        }

        @Test("a pause stops the threads of devices as well, each once, and lets them go on")
        func pause() throws {
            let writers = RecordingWriters()
            let devices = [DeviceDescription(writers: writers)]
            let guest = try TestGuest("hello", "do=sleep", devices: devices)
            try guest.start()
            guest.machine.pauseWriters()
            #expect(writers.calls == ["request 0", "wait for 0"])
            guest.machine.pause()
            guest.machine.resume()
            guest.machine.resumeWriters()
            #expect(
                writers.calls
                    == ["request 0", "wait for 0", "request 1", "wait for 1", "resume", "resume"])
        }

        @Test("the clock goes on while a vCPU sleeps")
        func clock() throws {
            let guest = try TestGuest("hello", "do=clock")
            try guest.start()
            #expect(try guest.end() == .exited(0))
            func value(_ name: String) throws -> UInt64 {
                let line = try guest.line(name)
                return try #require(UInt64(line.split(separator: "=")[1]))
            }
            #expect(try value("after_ns") - value("before_ns") >= 10_000_000)
            #expect(try value("after_ns") <= monotonicNanoseconds())
        }
    }
}

/// Writes down how it is paused.
private final class RecordingWriters: PauseMember {
    private let list = Mutex<[String]>([])
    var calls: [String] { list.withLock { $0 } }

    func requestPause() -> UInt64 {
        list.withLock {
            let number = $0.count(where: { $0.hasPrefix("request") })
            $0.append("request \(number)")
            return UInt64(number)
        }
    }
    func waitUntilPaused(_ request: UInt64) { list.withLock { $0.append("wait for \(request)") } }
    func resume() { list.withLock { $0.append("resume") } }
}

/// Answers reads with a pattern of the width, remembers everything.
private final class RecordingDevice: PortDevice, MemoryDevice {
    struct Access: Equatable {
        let isWrite: Bool
        let offset: UInt64
        let size: Int
        let value: UInt64
        init(_ isWrite: Bool, _ offset: UInt64, _ size: Int, _ value: UInt64) {
            (self.isWrite, self.offset, self.size, self.value) = (isWrite, offset, size, value)
        }
    }
    private let list = Mutex<[Access]>([])
    var accesses: [Access] { list.withLock { $0 } }

    func read(offset: UInt64, size: Int, by vcpu: any ProcessorContext) -> UInt64 {
        list.withLock { $0.append(Access(false, offset, size, 0)) }
        return 0x8474_6454_4434_2414
    }
    func write(offset: UInt64, size: Int, value: UInt64, by vcpu: any ProcessorContext) {
        list.withLock { $0.append(Access(true, offset, size, value)) }
    }
    func read(offset: UInt16, size: Int, by vcpu: any ProcessorContext) -> UInt32 {
        UInt32(truncatingIfNeeded: read(offset: UInt64(offset), size: size, by: vcpu))
    }
    func write(offset: UInt16, size: Int, value: UInt32, by vcpu: any ProcessorContext) {
        write(offset: UInt64(offset), size: size, value: UInt64(value), by: vcpu)
    }
}
