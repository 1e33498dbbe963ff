import Foundation
import GuestMemory
import LinuxHost
import Synchronization
import Testing

@testable import Hypervisor
import TestSupport

extension HostKVM {
    @Suite("Pause, resume and stop")
    struct PauseTests {
        @Test("every vCPU runs", arguments: [1, 2, 4, 32])
        func processors(count: Int) throws {
            let guest = try TestGuest("hello", "do=spin", processors: count)
            try guest.start()
            try guest.line("spinning")
            for index in 0..<count {
                let address = GuestAddress(try guest.freeStart + 64 * UInt64(index))
                #expect(
                    try eventually { try guest.machine.memory.load(UInt64.self, at: address) > 0 },
                    "vCPU \(index)")
                #expect(guest.text.contains("hello: vcpu \(index) of \(count), guest 0\n"))
            }
            guest.machine.pause()
            func counts() throws -> [UInt64] {
                try (0..<count).map {
                    try guest.machine.memory.load(
                        UInt64.self, at: GuestAddress(guest.freeStart + 64 * UInt64($0)))
                }
            }
            let paused = try counts()
            usleep(20_000)
            #expect(try counts() == paused)
            guest.machine.resume()
            #expect(try eventually { try zip(counts(), paused).allSatisfy { $0 > $1 } })
        }

        /// As when the kernel takes a mapping away and refuses another: by emulation or not, the guest reads no other bytes.
        @Test("RAM that is not mapped any more ends the guest")
        func lostMemory() throws {
            let guest = try TestGuest("hello", "do=spin")
            try guest.start()
            try guest.line("spinning")
            guest.machine.pause()
            let page = try guest.freeStart & ~0xFFF
            #expect(munmap(guest.machine.memory.mapping.base + Int(page), 4096) == 0)
            guest.machine.resume()
            guard case .failed(let reason) = try guest.end() else {
                Issue.record("it went on")
                return
            }
            #expect(reason.contains("KVM_RUN: Bad address") || reason.contains("is not mapped"), "\(reason)")
        }

        @Test(
            "1000 pauses under churn, nested from two threads: memory stands still, nothing is lost",
            arguments: [2, 4])
        func churn(processors: Int) throws {
            let seed = SeededGenerator(for: "pauses").seed
            var random = SeededGenerator(seed: seed)
            let guest = try TestGuest("churn", "pages=256 seconds=0", memory: 4 << 20, processors: processors)
            let machine = guest.machine
            try guest.start()
            try guest.doorbell(1)
            try withOtherPauses(machine, seed: seed) {
                var latencies: [UInt64] = []
                for cycle in 0..<1000 {
                    usleep(UInt32.random(in: 0...1500, using: &random))
                    let before = monotonicNanoseconds()
                    machine.pause()
                    latencies.append(monotonicNanoseconds() - before)
                    defer { machine.resume() }
                    #expect(machine.isPaused)
                    let first = try machine.memory.read(GuestAddress(0), count: 4 << 20)
                    usleep(UInt32.random(in: 0...500, using: &random))
                    let second = try machine.memory.read(GuestAddress(0), count: 4 << 20)
                    let same = first.withUnsafeBytes { left in
                        second.withUnsafeBytes { memcmp(left.baseAddress!, $0.baseAddress!, left.count) == 0 }
                    }
                    try #require(same, "memory changed in pause \(cycle), seed \(seed)")
                }
                latencies.sort()
                print(
                    "pause of \(processors) vCPUs under churn, seed \(seed): median \(latencies[500] / 1000) µs,",
                    "p99 \(latencies[990] / 1000) µs, most \(latencies[999] / 1000) µs")
            }
            guest.send("exit")
            let line = try guest.line("churn: writes=")
            #expect(line.hasSuffix("lost=0 torn=0 foreign=0"), "\(line), seed \(seed)")
            #expect(try guest.end() == .exited(0))
        }

        /// Runs `body` while another thread pauses and resumes at its own pace.
        private func withOtherPauses(
            _ machine: VirtualMachine, seed: UInt64, _ body: () throws -> Void
        ) throws {
            let asked = Flag()
            let thread = try HostThread(name: "pauser") {
                var random = SeededGenerator(seed: ~seed)
                while !asked.isSet {
                    machine.pause()
                    usleep(UInt32.random(in: 0...300, using: &random))
                    machine.resume()
                    usleep(UInt32.random(in: 0...3000, using: &random))
                }
            }
            defer {
                asked.set()
                thread.join()
            }
            try body()
        }

        @Test("a vCPU that sleeps is paused at once, and its sleep goes on")
        func sleeping() throws {
            let folder = try TemporaryDirectory()
            // Sleeps for 1.5 s, then exits with 5.
            let code = TinyPayload.out(0xD08, 1_500_000, size: 4) + TinyPayload.exit(5)
            let kernel = try folder.write("tiny.elf", TinyPayload.file(code))
            let guest = try TestGuest(kernel: kernel)
            let start = monotonicNanoseconds()
            try guest.start()
            for _ in 0..<5 {
                usleep(100_000)
                guest.machine.pause()
                guest.machine.resume()
            }
            // Five pauses that waited for the sleep would have come to its end.
            #expect(guest.machine.end == nil || monotonicNanoseconds() - start > 1_500_000_000)
            #expect(try guest.end() == .exited(5))
            #expect(monotonicNanoseconds() - start >= 1_500_000_000)
        }

        @Test(
            "stop while running, while paused, before the start, and again",
            arguments: ["spin", "sleep", "echo"])
        func stop(action: String) throws {
            for _ in 0..<3 {
                let guest = try TestGuest("hello", "do=\(action)", processors: 2)
                try guest.start()
                try guest.doorbell(1)
                guest.machine.stop()
                guest.machine.stop(.poweredOff)
                #expect(guest.machine.end == .stopped)
            }
            let paused = try TestGuest("hello", "do=\(action)", processors: 2)
            try paused.start()
            try paused.doorbell(1)
            paused.machine.pause()
            paused.machine.stop()
            #expect(paused.machine.end == .stopped)
            paused.machine.resume()
            #expect(paused.machine.end == .stopped && !paused.machine.isPaused)

            let never = try TestGuest("hello", "do=\(action)")
            never.machine.stop()
            #expect(never.machine.end == .stopped)
        }

        @Test("the end of the guest frees those who wait for a pause")
        func endDuringPauses() throws {
            for round in 0..<10 {
                let guest = try TestGuest("hello", "do=echo code=4", processors: 2)
                let machine = guest.machine
                try guest.start()
                try guest.doorbell(1)
                guest.send("exit")
                let done = (0..<3).map { _ in Flag() }
                let threads = try done.map { flag in
                    try HostThread(name: "pauser") {
                        while machine.end == nil {
                            machine.pause()
                            machine.resume()
                        }
                        machine.pause()
                        flag.set()
                    }
                }
                #expect(eventually { done.allSatisfy(\.isSet) }, "round \(round)")
                machine.stop()
                threads.forEach { $0.join() }
                #expect(machine.end == .exited(4))
            }
        }

        @Test("a guest that is paused before its start does not begin")
        func pausedStart() throws {
            let guest = try TestGuest("hello")
            guest.machine.pause()
            try guest.start()
            usleep(100_000)
            #expect(guest.text.isEmpty && guest.machine.end == nil)
            guest.machine.resume()
            #expect(try guest.end() == .exited(0))
        }
    }
}

/// Set once, by any thread.
final class Flag: Sendable {
    private let state = Atomic(false)
    var isSet: Bool { state.load(ordering: .acquiring) }
    func set() { state.store(true, ordering: .releasing) }
}
