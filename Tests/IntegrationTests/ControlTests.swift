import Foundation
import MingleSupport
import VMMProtocol
import Testing
import TestSupport

extension HostKVM {
    @Suite("The control socket's clients")
    struct ControlTests {
        private func guest(_ payload: String, _ arguments: String, memory: Int = 16 << 20) throws -> (
            VMMProcess, String
        ) {
            let folder = try TemporaryDirectory()
            let path = folder.path("control")
            let guest = try VMMProcess(
                payload, arguments, memory: memory, options: ["--control", path], folder: folder)
            #expect(eventually { (try? ControlClient(guest: "guest", path: path)) != nil })
            return (guest, path)
        }

        private func clients(_ count: Int, _ path: String) throws -> [ControlClient] {
            try (0..<count).map { _ in try ControlClient(guest: "guest", path: path, seconds: 20) }
        }

        @Test("silent clients give way, those idle longest first")
        func idle() throws {
            let (guest, path) = try guest("hello", "do=sleep")
            let silent = try clients(8, path)
            for client in silent { _ = try client.statistics() }
            // The first is not the one that has been idle longest any more.
            _ = try silent[0].statistics()
            for _ in 0..<3 {
                let new = try ControlClient(guest: "guest", path: path, seconds: 20)
                #expect(try new.statistics().name == "guest")
            }
            _ = try silent[0].statistics()
            #expect(throws: SupportError.self) { try silent[1].statistics() }
            withExtendedLifetime((guest, silent)) {}
        }

        /// As a broker does that looks who listens: all of them are taken in at once by a guest that was stopped.
        @Test("who has left takes nobody's place")
        func knocks() throws {
            let (guest, path) = try guest("hello", "do=sleep")
            let silent = try clients(4, path)
            for client in silent { _ = try client.statistics() }
            guest.child.kill(SIGSTOP)
            for _ in 0..<8 { _ = try ControlClient(guest: "guest", path: path, seconds: 20) }
            guest.child.kill(SIGCONT)
            for client in silent { _ = try client.statistics() }
            withExtendedLifetime((guest, silent)) {}
        }

        @Test("who keeps the guest paused is not idle; eight of them are told of")
        func paused() throws {
            let (guest, path) = try guest("hello", "do=spin")
            let holder = try ControlClient(guest: "guest", path: path, seconds: 20)
            try holder.ask("pause")
            var others: [ControlClient] = []
            for _ in 0..<12 {
                others += try clients(1, path)
                #expect(try others.last?.statistics().name == "guest")
            }
            let paused = try ControlClient(guest: "guest", path: path, seconds: 20)
            #expect(try paused.ask("stats").contains("\"state\": \"paused\""))
            try holder.ask("resume")
            let holders = try clients(8, path)
            for client in holders { try client.ask("pause") }
            let late = try ControlClient(guest: "guest", path: path, seconds: 20)
            let error = #expect(throws: SupportError.self) { try late.statistics() }
            #expect(
                error?.description.contains("8 other clients hold this guest paused") == true,
                "\(error as Any)")
            withExtendedLifetime((guest, holders, others)) {}
        }

        @Test("one that does not take its answer holds nobody up")
        func stalled() throws {
            let (guest, path) = try guest("fill", "unique=1", memory: 256 << 20)
            try guest.waitForOutput("fill: ready")
            // 65536 digests of 16 bytes: more than a socket holds.
            let socket = try RawSocket(path)
            socket.send("digest pages")
            let start = ContinuousClock.now
            #expect(try ControlClient(guest: "guest", path: path, seconds: 60).statistics().name == "guest")
            guest.child.kill(SIGTERM)
            #expect(try guest.wait() == 143)
            // It would be dropped, and the others served, after 10 s.
            #expect(ContinuousClock.now - start < .seconds(9))
        }
    }
}

/// A client that only says something.
private final class RawSocket {
    private let number: Int32

    init(_ path: String) throws {
        number = socket(AF_UNIX, Int32(SOCK_SEQPACKET.rawValue), 0)
        var address = sockaddr_un()
        address.sun_family = sa_family_t(AF_UNIX)
        withUnsafeMutableBytes(of: &address.sun_path) { $0.copyBytes(from: Array(path.utf8)) }
        let result = withUnsafePointer(to: &address) { pointer in
            pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) {
                connect(number, $0, socklen_t(MemoryLayout<sockaddr_un>.size))
            }
        }
        guard result == 0 else { throw Failure("connect: errno \(errno)") }
    }

    func send(_ text: String) { _ = write(number, text, text.utf8.count) }

    deinit { close(number) }
}
