import Foundation
import GuestMemory
import LinuxHost
import MingleSupport
import Testing
import TestSupport
import VMMProtocol

extension HostKVM {
    @Suite(
        "Memory that runs short",
        .enabled(if: LimitedGroup.problem == nil, Comment(rawValue: LimitedGroup.problem ?? "")))
    final class PressureCommands {
        private let tool: CommandLineTool
        private let group: LimitedGroup
        private let hog = "/dev/shm/mingle-test-\(getpid())"
        private var guests: [String: (process: ChildProcess, input: Int32)] = [:]
        private var controls: [String: ControlClient] = [:]
        /// Seconds of ``Pace`` that nothing here takes.
        private static let patience = 300.0

        init() throws {
            tool = try CommandLineTool()
            group = try LimitedGroup(bytes: 320 << 20)
        }

        deinit {
            unlink(hog)
            for guest in guests.values {
                close(guest.input)
                guest.process.kill(SIGKILL)
                _ = try? guest.process.wait()
            }
        }

        private func start(_ name: String, _ memory: String) throws {
            var ends: [Int32] = [0, 0]
            guard pipe(&ends) == 0 else { throw Failure("no pipe") }
            for end in ends { _ = fcntl(end, F_SETFD, FD_CLOEXEC) }
            defer { close(ends[0]) }
            let process = try tool.start(
                [
                    "run", "--name", name, "--kernel", "payload:fill", "--memory", memory, "--domain", "lab",
                    "--share-cpu", "100%", "--overcommit", "--timeout", "7200", "--", "common=0.7",
                ], output: name, input: ends[0], groups: group.joining)
            guests[name] = (process, ends[1])
        }

        private func type(_ text: String, to name: String) throws {
            let guest = try #require(guests[name])
            let bytes = Array((text + "\n").utf8)
            #expect(write(guest.input, bytes, bytes.count) == bytes.count)
        }

        /// Asked at the control socket: a program for each look would keep the guests from what is waited for.
        private func stats(_ name: String) throws -> GuestStatistics {
            let control =
                try controls[name]
                ?? ControlClient(
                    guest: name, path: tool.stateDirectory + "/control/" + name, seconds: 300)
            controls[name] = control
            return try control.statistics()
        }

        private func sharing(_ name: String) throws -> SharingFigures { try #require(stats(name).sharing) }

        /// Waits for what must come; what the guests are at belongs to the failure.
        private func wait(_ what: String, _ condition: () throws -> Bool) throws {
            if try eventually(within: Self.patience, condition) { return }
            let states = controls.keys.sorted().map { name in
                "\(controls[name].flatMap { try? $0.ask("stats") } ?? "")\n"
                    + "\(controls[name].flatMap { try? $0.ask("debug") } ?? "")\n\(tool.folder.text(name + ".errors"))"
            }
            throw Failure("not yet: \(what)\n\(states.joined(separator: "\n"))\n\(HostState.description)")
        }

        /// Takes memory of the group, so that so much is left.
        private func takeAll(but bytes: Int) throws {
            let size = try group.availableBytes() - bytes
            let joining = group.joining.map { "echo $$ > \($0); " }.joined()
            let taker = try ChildProcess(
                "/bin/sh", ["-c", joining + "head -c \(size) /dev/zero > \(hog)"],
                streams: (0..<3).map { .file("/dev/null", $0 == 0 ? O_RDONLY : O_WRONLY) })
            #expect(try taker.wait() == 0)
        }

        @Test("merges are held, who takes more is paused, nobody is killed; with memory it all goes on")
        func shortage() throws {
            for name in ["a", "b"] { try start(name, "64M") }
            // 70 % of the free pages of 64 MiB.
            let common = 10500
            try wait("their memory is shared") {
                ["a", "b"].allSatisfy { ((try? sharing($0))?.pagesMapped ?? 0) > common }
            }
            // What is merged later would free memory again that is to be short.
            for name in ["a", "b"] {
                let scans = try sharing(name).fullScans
                try wait("all is merged") {
                    let now = try sharing(name)
                    if now.isSettled && now.fullScans > scans + 1 { return true }
                    // Where nothing changes passes are seldom; a policy, though it is the old one, is a reason for one.
                    _ = try controls[name]?.ask("share-cpu 100")
                    return false
                }
            }
            #expect(try stats("a").pressure == "none" && !sharing("a").holdsMerges)

            // 40 MiB are the reserve.
            try takeAll(but: 28 << 20)
            try wait("merges are held") { try sharing("a").holdsMerges && sharing("b").holdsMerges }
            #expect(try stats("a").pressure == "full" && stats("a").pausedFor == nil)
            // One that comes now has 10 MiB that the others have, too, and is not merged.
            try start("c", "16M")
            try wait("a guest that comes now holds merges") { (try? sharing("c").holdsMerges) == true }
            let merged = try sharing("a").pagesMerged + sharing("b").pagesMerged

            // Each step takes up to 3 MiB by writes to pages that were shared.
            var steps = 0
            while steps < 5, try stats("b").pausedFor == nil {
                try type("rewrite 0.06", to: "b")
                steps += 1
                try wait("b has rewritten, or is paused") {
                    try stats("b").pausedFor == GuestStatistics.memoryIsShort
                        || tool.folder.text("b").components(separatedBy: "fill: rewrite ok").count > steps
                }
            }
            try wait("b is paused") { try stats("b").pausedFor == GuestStatistics.memoryIsShort }
            #expect(try stats("b").state == .paused)
            #expect(tool.folder.text("b.errors").contains("paused: memory is nearly used up"))
            #expect(
                try tool.run(["ps"]).split(separator: "\n").contains {
                    $0.contains("b ") && $0.contains("paused")
                })
            #expect(try stats("a").pausedFor == nil && stats("a").state == .running)
            #expect(try sharing("a").pagesMerged + sharing("b").pagesMerged == merged)
            #expect(try sharing("c").pagesMapped == 0)

            unlink(hog)
            try wait("b goes on") { try stats("b").state == .running }
            #expect(tool.folder.text("b.errors").contains("goes on: there is memory again"))
            try wait("c is merged") { try sharing("c").pagesMapped > 2000 && !sharing("a").holdsMerges }
            #expect(try stats("a").pressure != "full")
            for name in ["a", "b", "c"] {
                try type("check", to: name)
                try wait("\(name) has checked") { tool.folder.text(name).contains("fill: check ok") }
                #expect(guests[name]?.process.finish() == nil)
            }
            #expect(group.kills == 0)
            _ = try tool.run(["stop", "--all"])
        }
    }
}
