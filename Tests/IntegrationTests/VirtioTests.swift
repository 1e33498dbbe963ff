import Foundation
import GuestMemory
import Hypervisor
import LinuxHost
import TestSupport
import Testing
import Virtio

extension HostKVM {
    /// Devices of virtio under real vCPUs: notifications by ioeventfd, interrupts by irqfd, an event loop on a thread of its own.
    @Suite("virtio devices")
    struct VirtioTests {
        /// Runs an event loop until it is told to stop.
        private final class LoopThread: Sendable {
            private let stop: OwnedDescriptor
            private let thread: HostThread

            /// - Parameter make: builds what the loop serves; called on the thread.
            init(_ make: @escaping @Sendable (EventLoop) -> AnyObject?) throws {
                let stop = try OwnedDescriptor.event()
                let number = stop.number
                self.stop = stop
                thread = try HostThread(name: "loop") {
                    guard let events = try? EventLoop() else { return }
                    var isOver = false
                    events.watch(events.add { _ in isOver = true }, number, .input)
                    let served = make(events)
                    while !isOver { events.turn() }
                    withExtendedLifetime(served) {}
                }
            }
            func end() {
                stop.signalEvent()
                thread.join()
            }
        }

        private func boot(_ arguments: String, devices: Int = 1) throws -> (TestGuest, LoopThread) {
            let made = Monitor<Result<TestGuest, any Error>?>(nil)
            let loop = try LoopThread { events in
                var machine: VirtioMachine?
                let guest = Result {
                    try TestGuest("hello", arguments) { context throws(HypervisorError) in
                        let virtio = try VirtioMachine(context, events)
                        for _ in 0..<devices { try virtio.add(EntropyDevice()) }
                        machine = virtio
                        return virtio.descriptions
                    }
                }
                made.update { $0 = guest }
                return machine
            }
            guard let guest = made.wait({ $0 }) else { preconditionFailure() }
            return (try guest.get(), loop)
        }

        @Test("the entropy device answers a driver, each time with other bytes", arguments: [0, 7, 63])
        func entropy(device: Int) throws {
            let window = String(0xD000_0000 + device * 0x1000, radix: 16)
            let (guest, loop) = try boot("do=entropy addr=\(window) pages=20", devices: device + 1)
            defer { loop.end() }
            try guest.start()
            #expect(try guest.end() == .exited(0), "\(guest.text)")
            let lines = guest.text.split(separator: "\n").filter { $0.contains("entropy") }
            #expect(lines.count == 20)
            #expect(lines.allSatisfy { $0.contains("count=4096") && $0.hasSuffix("interrupt=1") })
            #expect(Set(lines.map { $0.split(separator: " ")[4] }).count == 20, "no two are equal")
        }

        @Test("while the guest is paused, nothing is written into its memory")
        func pause() throws {
            let (guest, loop) = try boot("do=entropy addr=d0000000 pages=3000")
            defer { loop.end() }
            try guest.start()
            try guest.line("entropy")
            for _ in 0..<50 {
                guest.machine.pause()
                let before = try guest.machine.memory.read(GuestAddress(0), count: 16 << 20)
                usleep(2000)
                #expect(try guest.machine.memory.read(GuestAddress(0), count: 16 << 20) == before)
                guest.machine.resume()
                usleep(500)
            }
            guest.machine.stop()
        }

        @Test("where no device is, the driver finds none")
        func nobody() throws {
            let (guest, loop) = try boot("do=entropy addr=d0001000")
            defer { loop.end() }
            try guest.start()
            #expect(try guest.end() != .exited(0))
            #expect(guest.text.contains("no entropy device at 0xd0001000"))
        }
    }
}
