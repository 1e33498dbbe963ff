import Foundation
import GuestMemory
import LinuxHost
import Testing
import TestSupport

extension HostKVM {
    @Suite("Guests that may not fit in memory")
    struct AdmissionCommands {
        /// What a payload can have at most, in MiB.
        private static let limit: UInt64 = 140 << 10
        private static let total = (MemoryBound.all().first?.totalBytes ?? 0) / (1 << 20)

        @Test(
            "up to ten times what the host has is refused, and nothing is left of it",
            .enabled(if: total < limit, "a payload has at most 140 GiB, and this host has them"))
        func refused() throws {
            let tool = try CommandLineTool()
            let memory = "\(min(Self.total * 10, Self.limit))M"
            let run = try tool.start([
                "run", "--kernel", "payload:hello", "--memory", memory, "--domain", "lab",
            ])
            #expect(try run.wait() == 125)
            let errors = tool.folder.text("output.errors")
            #expect(errors.contains("--overcommit") && errors.contains("available"), "\(errors)")
            #expect(tool.folder.text("output") == "")
            let density = try tool.start([
                "density", "--guests", "10", "--image", "payload:hello", "--memory",
                "\(Self.total)M",
            ])
            #expect(try density.wait() == 1)
            #expect(tool.folder.text("output.errors").contains("10 guests of"))
            // No broker either.
            #expect(tool.processes == [])
            #expect(tool.leftovers == [])
            #expect(tool.guests == [])
        }

        @Test("--overcommit starts it, with a warning, since it may touch little")
        func overcommitted() throws {
            let tool = try CommandLineTool()
            let memory = min(Self.total * 10, Self.limit)
            let run = try tool.start([
                "run", "--kernel", "payload:hello", "--memory", "\(memory)M", "--overcommit",
            ])
            #expect(try run.wait() == 0)
            #expect(tool.folder.text("output").contains("hello"))
            let warns = tool.folder.text("output.errors").contains("too little")
            if memory > Self.total { #expect(warns) }
            #expect(tool.leftovers == [] && tool.guests == [])
        }

        /// Of what is available, so that a second one does not fit.
        private static let most = (MemoryBound.all().first?.availableBytes ?? 0) / (5 << 20) * 4

        @Test(
            "of two that start at the same time and do not fit together, one is refused",
            .enabled(if: most <= limit, "a payload has at most 140 GiB, and this host has room for two"))
        func race() throws {
            let tool = try CommandLineTool()
            let memory = Self.most
            let starters = try (0..<2).map { index in
                try tool.start(
                    [
                        "run", "--name", "g\(index)", "--kernel", "payload:fill", "--memory", "\(memory)M",
                        "--serial", "none", "--timeout", "1800", "--", "common=0.00001",
                    ], output: "g\(index)")
            }
            let isDecided = eventually { starters.contains { $0.finish() != nil } && tool.guests.count == 1 }
            #expect(isDecided)
            let running = try #require(tool.guests.first)
            let refused = tool.folder.text(running == "g0" ? "g1.errors" : "g0.errors")
            #expect(refused.contains("promised to 1 running guest"), "\(refused)")
            // What it was promised counts though it holds little of it; and counts no more when it has ended.
            let third = [
                "run", "--kernel", "payload:hello", "--memory", "\(memory / 2)M", "--serial", "none",
            ]
            #expect(try tool.start(third).wait() == 125)
            _ = try tool.run(["stop", "--all", "--force"])
            #expect(try tool.start(third).wait() == 0)
        }
    }
}
