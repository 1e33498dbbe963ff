import Foundation
import GuestMemory
import Testing
import TestSupport

extension HostKVM {
    @Suite(
        "Memory that runs short",
        .enabled(if: LimitedGroup.problem == nil, Comment(rawValue: LimitedGroup.problem ?? "")))
    final class PressureCommands {
        private let tool: CommandLineTool
        private let group: LimitedGroup
        private let hog = "/dev/shm/mingle-test-\(getpid())"
        private var guests: [String: (process: ChildProcess, input: Int32)] = [:]

        init() throws {
            tool = try CommandLineTool()
            group = try LimitedGroup(bytes: 768 << 20)
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
                    "--share-cpu", "100%", "--overcommit", "--timeout", "300", "--", "common=0.7",
                ], output: name, input: ends[0], groups: group.joining)
            guests[name] = (process, ends[1])
        }

        private func type(_ text: String, to name: String) throws {
            let guest = try #require(guests[name])
            let bytes = Array((text + "\n").utf8)
            #expect(write(guest.input, bytes, bytes.count) == bytes.count)
        }

        private struct Stats {
            var state = "", pressure = "", pausedFor: String?
            var isHeld = false, mapped = 0, merged = 0
        }

        private func stats(_ name: String) throws -> Stats {
            let guests = try tool.json(["stats", name, "--json"])["guests"] as? [[String: Any]] ?? []
            let guest = try #require(guests.first)
            let sharing = guest["sharing"] as? [String: Any] ?? [:]
            return Stats(
                state: guest["state"] as? String ?? "", pressure: guest["pressure"] as? String ?? "",
                pausedFor: guest["paused_for"] as? String, isHeld: sharing["merges_held"] as? Bool ?? false,
                mapped: sharing["pages_mapped"] as? Int ?? 0, merged: sharing["pages_merged"] as? Int ?? 0)
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
            for name in ["a", "b"] { try start(name, "192M") }
            // 70 % of the free pages of 192 MiB.
            let common = 32000
            let isShared = eventually(within: 90) {
                ["a", "b"].allSatisfy { ((try? stats($0))?.mapped ?? 0) > common }
            }
            #expect(isShared)
            // What is merged later would free memory again that is to be short.
            let isDone = try eventually(within: 60) {
                let merged = try stats("a").merged + stats("b").merged
                usleep(1_500_000)
                return try stats("a").merged + stats("b").merged == merged
            }
            #expect(isDone)
            #expect(try stats("a").pressure == "none" && !stats("a").isHeld)

            // 64 MiB are the reserve.
            try takeAll(but: 44 << 20)
            let isHeld = try eventually { try stats("a").isHeld && stats("b").isHeld }
            #expect(isHeld)
            #expect(try stats("a").pressure == "full" && stats("a").pausedFor == nil)
            // One that comes now has 10 MiB that the others have, too, and is not merged.
            try start("c", "16M")
            #expect(eventually { tool.guests.contains("c") && (try? stats("c").isHeld) == true })
            let merged = try stats("a").merged + stats("b").merged

            // Each step takes up to 3 MiB by writes to pages that were shared.
            var steps = 0
            while steps < 5, try stats("b").pausedFor == nil {
                try type("rewrite 0.02", to: "b")
                steps += 1
                _ = try eventually(within: 2) { try stats("b").pausedFor == "memory" }
            }
            let paused = try stats("b")
            #expect(paused.pausedFor == "memory" && paused.state == "paused")
            #expect(tool.folder.text("b.errors").contains("paused: memory is nearly used up"))
            #expect(
                try tool.run(["ps"]).split(separator: "\n").contains {
                    $0.contains("b ") && $0.contains("paused")
                })
            #expect(try stats("a").pausedFor == nil && stats("a").state == "running")
            #expect(try stats("a").merged + stats("b").merged == merged)
            #expect(try stats("c").mapped == 0)

            unlink(hog)
            #expect(try eventually { try stats("b").state == "running" })
            #expect(tool.folder.text("b.errors").contains("goes on: there is memory again"))
            let isMerged = try eventually(within: 60) { try stats("c").mapped > 2000 && !stats("a").isHeld }
            #expect(isMerged)
            #expect(try stats("a").pressure != "full")
            for name in ["a", "b", "c"] {
                try type("check", to: name)
                #expect(eventually { tool.folder.text(name).contains("fill: check ok") })
                #expect(guests[name]?.process.finish() == nil)
            }
            #expect(group.kills == 0)
            _ = try tool.run(["stop", "--all"])
        }
    }
}
