import Confinement
import Foundation
import LinuxHost
import MingleSupport
import TestSupport
import Testing
import VMMProtocol

extension HostKVM {
    /// The table of system calls beside what guests of all sorts really ask for.
    @Suite(
        "The table of system calls",
        .enabled(if: access(SystemCallTrace.strace, X_OK) == 0, "strace is not installed"))
    struct TraceTests {
        private static func wrapper(_ folder: TemporaryDirectory, _ name: String) -> String {
            "\(SystemCallTrace.strace) -f -qq -o '\(folder.path(name + ".trace"))'"
        }

        /// Guests that share: merging, unsharing, going home, losing the broker, being asked everything.
        private func sharing(_ trace: inout SystemCallTrace) throws {
            let tool = try CommandLineTool()
            var guests: [SharingGuest] = []
            for (index, window) in ["auto", "pause"].enumerated() {
                let name = "g\(index)"
                guests.append(
                    try SharingGuest(
                        tool, name,
                        .init(
                            arguments: "zero=0.2 common=0.5 unique=0.2", window: window, megabytes: 8,
                            processors: 2, index: index, wrapper: Self.wrapper(tool.folder, name),
                            options: [
                                "--trace-share", tool.folder.path(name + ".pages"), "--report",
                                tool.folder.path(name + ".report"),
                            ])))
            }
            for guest in guests {
                try guest.waitUntilFilled()
                let common = try guest.number("common", in: "fill: ready")
                try guest.wait("its common pages are shared") { try guest.count(\.pagesMapped) >= common }
            }
            try SharingGuest.say("rewrite 0.2", to: guests, answer: "fill: rewrite")
            for guest in guests { for command in ["debug", "memory", "stats"] { try guest.ask(command) } }
            for guest in guests {
                try guest.ask("pause")
                _ = try guest.control().digests(everyPage: true)
                try guest.ask("resume")
                try guest.goHome()
                try guest.ask("sharing on")
            }
            let worker = try #require(try tool.broker().processes.last)
            kill(worker, SIGKILL)
            for guest in guests {
                try guest.wait("it joined the next broker") {
                    try guest.count(\.brokerConnections) >= 2 && guest.flag(\.hasBroker)
                }
            }
            try SharingGuest.check(guests)
            try SharingGuest.exit(guests)
            for name in ["g0", "g1"] { trace.add(tool.folder.text(name + ".trace")) }
        }

        /// Mappings that cannot be had, and that take away what was there.
        private func faults(_ trace: inout SystemCallTrace) throws {
            let tool = try CommandLineTool()
            var guests: [SharingGuest] = []
            for (index, window) in ["auto", "pause"].enumerated() {
                guests.append(
                    try SharingGuest(
                        tool, "g\(index)",
                        .init(
                            arguments: "zero=0.2 common=0.5 unique=0.2", window: window, megabytes: 8,
                            index: index, faults: "lose-mappings=3,arrange,eager",
                            wrapper: Self.wrapper(tool.folder, "g\(index)"))))
            }
            for guest in guests {
                try guest.waitUntilFilled()
                try guest.wait("some pages are shared") { try guest.count(\.pagesMapped) >= 64 }
            }
            try SharingGuest.say("rewrite 0.5", to: guests, answer: "fill: rewrite")
            try SharingGuest.check(guests)
            for guest in guests { try guest.goHome() }
            try SharingGuest.exit(guests)
            for name in ["g0", "g1"] { trace.add(tool.folder.text(name + ".trace")) }
        }

        /// Stretches that are put together beside and moved into place.
        private func arranging(_ trace: inout SystemCallTrace) throws {
            let tool = try CommandLineTool()
            let guests = try (0..<2).map { index in
                try SharingGuest(
                    tool, "g\(index)",
                    .init(
                        payload: "churn", arguments: "pages=1024 common=0.5 rest=900 rate=600 seconds=0",
                        megabytes: 16, index: index, faults: "arrange,eager",
                        wrapper: Self.wrapper(tool.folder, "g\(index)")))
            }
            for guest in guests {
                try guest.wait("its mappings are arranged") { try guest.count(\.arrangements) >= 5 }
            }
            for guest in guests { try guest.ask("type exit") }
            for guest in guests { #expect(try guest.end() == 0, "\(guest.output)") }
            for name in ["g0", "g1"] { trace.add(tool.folder.text(name + ".trace")) }
        }

        /// One without sharing, at a terminal.
        private func terminal(_ trace: inout SystemCallTrace) throws {
            let terminal = try PseudoTerminal()
            let folder = try TemporaryDirectory()
            let state = try folder.stateDirectory()
            let child = try ChildProcess(
                SystemCallTrace.strace,
                [
                    "-f", "-qq", "-o", folder.path("trace"), Locations.vmm, "--kernel",
                    try Locations.payload("hello"), "--memory", "\(16 << 20)", "--arguments", "do=echo",
                    "--state-dir", state, "--timeout", "600", "--ram", "anonymous-mergeable", "--control",
                    folder.path("control"),
                ],
                streams: [
                    .file(terminal.path, O_RDWR), .file(terminal.path, O_RDWR), .into(folder.path("errors")),
                ], ownSession: true)
            try terminal.wait(for: "hello: vcpu 0 of 1, guest 0")
            terminal.type("key\n")
            try terminal.wait(for: "hello: echo key")
            terminal.type([0x01, UInt8(ascii: "x")])
            #expect(try child.wait(within: 60) == 130, "\(folder.text("errors"))")
            trace.add(folder.text("trace"))
        }

        /// A reader that is slow, behind a socket.
        private func socket(_ trace: inout SystemCallTrace) throws {
            let folder = try TemporaryDirectory()
            var pair: [Int32] = [0, 0]
            #expect(socketpair(AF_UNIX, Int32(SOCK_STREAM.rawValue), 0, &pair) == 0)
            defer { pair.forEach { close($0) } }
            // No room for a word of the guest's.
            let filler = [UInt8](repeating: 0x2E, count: 4096)
            while send(pair[1], filler, filler.count, Int32(MSG_DONTWAIT)) > 0 {}
            let child = try ChildProcess(
                SystemCallTrace.strace,
                [
                    "-f", "-qq", "-o", folder.path("trace"), Locations.vmm, "--kernel",
                    try Locations.payload("hello"), "--memory", "\(16 << 20)", "--arguments",
                    "do=exit", "--timeout", "600",
                ], streams: [.nothing, .descriptor(pair[1]), .into(folder.path("errors"))])
            close(pair[1])
            pair.removeLast()
            // Longer than the guest's memory is kept for.
            usleep(1_500_000)
            var buffer = [UInt8](repeating: 0, count: 1 << 16)
            while read(pair[0], &buffer, buffer.count) > 0 {}
            _ = try child.wait(within: 120)
            trace.add(folder.text("trace"))
        }

        @Test("every row is used by some guest, or says why not", .needs(.faults))
        func table() throws {
            var trace = SystemCallTrace()
            try sharing(&trace)
            try faults(&trace)
            try arranging(&trace)
            try terminal(&trace)
            try socket(&trace)
            for kind in ThreadKind.allCases {
                let seen = trace.calls[kind] ?? []
                let rules = SystemCallTable.rules(of: kind)
                let allowed = Set(rules.map { "\($0.call)" })
                // The kernel would have ended the guest.
                #expect(seen.isSubset(of: allowed), "\(kind): \(seen.subtracting(allowed))")
                let unused = Set(rules.filter { $0.isRare == nil }.map { "\($0.call)" }).subtracting(seen)
                #expect(unused.isEmpty, "\(kind) needs no \(unused.sorted()), or no guest here shows it")
                print("\(kind): \(seen.count) of \(allowed.count) calls seen: \(seen.sorted())")
            }
        }
    }
}
