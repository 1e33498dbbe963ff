import Foundation
import LinuxHost
import MingleSupport
import Testing
import TestSupport

extension HostKVM {
    /// The control socket's `debug`: what is to be read when a guest does not answer.
    @Suite("What a guest is at")
    struct DebugTests {
        private let folder: TemporaryDirectory
        private var socket: String { folder.path("control") }

        init() throws {
            folder = try TemporaryDirectory()
        }

        private func start(_ kernel: String?, _ arguments: String = "", processors: Int = 1) throws
            -> VMMProcess
        {
            try VMMProcess(
                "hello", arguments, kernel: kernel, processors: processors, options: ["--control", socket],
                folder: folder)
        }

        private func connect(_ guest: VMMProcess) throws -> ControlClient {
            var client: ControlClient?
            #expect(
                eventually {
                    client = try? ControlClient(guest: "guest", path: socket, seconds: 300)
                    return client != nil || guest.child.finish() != nil
                })
            return try #require(client, "\(guest.errors)")
        }

        @Test("registers and the instruction of a loop, the guest going on")
        func loop() throws {
            // mov rbx, 0x1122334455667788; out 0xD04, rdi's lowest byte (the doorbell); jmp to itself
            let code: [UInt8] =
                [0x48, 0xBB, 0x88, 0x77, 0x66, 0x55, 0x44, 0x33, 0x22, 0x11]
                + TinyPayload.out(0xD04, 1, size: 4) + [0xEB, 0xFE]
            let kernel = try folder.write("tiny.elf", TinyPayload.file(code))
            let guest = try start(kernel)
            let control = try connect(guest)
            #expect(try eventually { try control.ask("stats").contains("\"state\": \"running\"") })
            for _ in 0..<3 {
                let text = try control.ask("debug")
                let address = String(TinyPayload.codeStart + UInt64(code.count) - 2, radix: 16)
                #expect(text.contains("rbx=1122334455667788"), "\(text)")
                #expect(text.contains("rip=" + String(repeating: "0", count: 16 - address.count) + address))
                #expect(text.contains("code at rip: eb fe"))
                #expect(text.contains("state: runnable") && text.contains("thread vcpu0: "))
                #expect(text.contains("guest, alive"))
            }
            #expect(guest.child.finish() == nil)
            #expect(try control.ask("stats").contains("\"state\": \"running\""))
        }

        @Test("every vCPU, also of a guest that is paused, and what it said last", arguments: [true, false])
        func sleepers(isPaused: Bool) throws {
            let guest = try start(nil, "do=echo code=3", processors: 2)
            let control = try connect(guest)
            #expect(eventually { guest.output.contains("vcpu 1 of 2") })
            if isPaused { try control.ask("pause") }
            let text = try control.ask("debug")
            for index in 0..<2 {
                #expect(text.contains("vCPU \(index):") && text.contains("thread vcpu\(index): "), "\(text)")
            }
            #expect(text.contains("apic: id=") && text.contains("ioapic: ") && text.contains("serial: sent "))
            #expect(text.contains("last words:\nhello: vcpu "))
            // Nothing of it moves the guest.
            #expect(
                try eventually { try control.ask("stats").contains(isPaused ? "\"paused\"" : "\"running\"") })
            try control.ask("type heard")
            if isPaused { try control.ask("resume") }
            try guest.waitForOutput("hello: echo heard\n")
            try control.ask("type exit")
            #expect(try guest.wait() == 3)
        }

        @Test("checksums of pages tell changes as digests do")
        func checksums() throws {
            let guest = try start(try Locations.payload("fill"), "pages=200 unique=1")
            let control = try connect(guest)
            #expect(eventually { guest.output.contains("fill: ready") })
            func look() throws -> (sums: [PageDigest], digests: [PageDigest]) {
                try control.ask("pause")
                defer { _ = try? control.ask("resume") }
                return (
                    try control.digests(everyPage: true, isChecksum: true),
                    try control.digests(everyPage: true)
                )
            }
            let before = try look()
            try control.ask("type rewrite 0.5")
            #expect(eventually { guest.output.contains("fill: rewrite ok") })
            let after = try look()
            #expect(before.sums.count == before.digests.count && before.sums.count == 4096)
            let changed = before.digests.indices.filter { before.digests[$0] != after.digests[$0] }
            #expect(changed.count >= 100)
            #expect(changed == before.sums.indices.filter { before.sums[$0] != after.sums[$0] })
            // All pages that differ do so by either.
            #expect(Set(before.sums).count == Set(before.digests).count)
            #expect(before.sums.map(\.isZero) == before.digests.map(\.isZero))
            #expect(throws: SupportError.self) { try control.ask("digest backwards") }
        }
    }
}
