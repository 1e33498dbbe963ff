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

        private func boot(_ arguments: String, devices: Int = 1) throws -> (
            TestGuest, LoopThread, [MMIOTransport]
        ) {
            let made = Monitor<Result<(TestGuest, [MMIOTransport]), any Error>?>(nil)
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
                made.update { $0 = guest.map { ($0, machine?.transports ?? []) } }
                return machine
            }
            guard let guest = made.wait({ $0 }) else { preconditionFailure() }
            let (built, transports) = try guest.get()
            return (built, loop, transports)
        }

        @Test("the entropy device answers a driver, each time with other bytes", arguments: [0, 7, 63])
        func entropy(device: Int) throws {
            let window = String(0xD000_0000 + device * 0x1000, radix: 16)
            let (guest, loop, _) = try boot("do=entropy addr=\(window) pages=20", devices: device + 1)
            defer { loop.end() }
            try guest.start()
            #expect(try guest.end() == .exited(0), "\(guest.text)")
            let lines = guest.text.split(separator: "\n").filter { $0.contains("entropy count") }
            #expect(lines.count == 20)
            #expect(lines.allSatisfy { $0.contains("count=4096") && $0.hasSuffix("interrupt=1") })
            #expect(Set(lines.map { $0.split(separator: " ")[4] }).count == 20, "no two are equal")
        }

        @Test(
            "while the guest is paused, nothing is written into its memory, and after that all that was asked for"
        )
        func pause() throws {
            let (guest, loop, transports) = try boot("do=entropy addr=d0000000 pages=3000")
            defer { loop.end() }
            try guest.start()
            try guest.line("entropy count")
            let memory = guest.machine.memory
            for _ in 0..<50 {
                guest.machine.pause()
                let before = try memory.read(GuestAddress(0), count: 16 << 20)
                usleep(2000)
                #expect(try memory.read(GuestAddress(0), count: 16 << 20) == before)
                guest.machine.resume()
                usleep(500)
            }
            // As if a request came at the last moment: it is there, and the device was notified of it.
            let text = try guest.line("entropy queue at ")
            let address = try #require(text.split(separator: "x").last.flatMap { UInt64($0, radix: 16) })
            let (available, used) = (GuestAddress(address + 18), GuestAddress(address + 66))
            guest.machine.pause()
            // What was under way is over.
            var done = try memory.loadAcquiring(at: used)
            if try memory.loadAcquiring(at: available) != done {
                guest.machine.resume()
                #expect(try eventually { try memory.loadAcquiring(at: used) != done })
                guest.machine.pause()
                done = try memory.loadAcquiring(at: used)
            }
            let asked = try memory.loadAcquiring(at: available)
            try memory.storeReleasing(asked &+ 1, at: available)
            let before = try memory.read(GuestAddress(0), count: 16 << 20)
            transports[0].write(offset: MMIOTransport.notifyOffset, size: 4, value: 0, by: Nobody())
            usleep(100_000)
            #expect(try memory.read(GuestAddress(0), count: 16 << 20) == before)
            guest.machine.resume()
            #expect(try eventually { try memory.loadAcquiring(at: used) &- done > 0 })
            guest.machine.stop()
        }

        @Test("where no device is, the driver finds none")
        func nobody() throws {
            let (guest, loop, _) = try boot("do=entropy addr=d0001000")
            defer { loop.end() }
            try guest.start()
            #expect(try guest.end() != .exited(0))
            #expect(guest.text.contains("no entropy device at 0xd0001000"))
        }
    }
}

/// Stands for a vCPU of whom a transport asks nothing.
private final class Nobody: ProcessorContext {
    let index = 0
    func end(_ reason: GuestEnd) {}
}
