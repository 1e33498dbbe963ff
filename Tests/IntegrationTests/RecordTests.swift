import Foundation
import LinuxHost
import Testing
import TestSupport

extension HostKVM {
    @Suite("What the VMM writes about its guest")
    struct RecordTests {
        private struct Report: Decodable {
            struct Doorbell: Decodable {
                let number: UInt32
                let processor: Int
                let ns: UInt64
            }
            let name, kernel, end, clock: String
            let memory_bytes, cpus, status, doorbell_count: Int
            let started_ns, built_ns, entered_ns, ended_ns: UInt64
            let doorbells: [Doorbell]
        }

        private func report(_ folder: TemporaryDirectory) throws -> Report {
            try JSONDecoder().decode(Report.self, from: Data(folder.bytes("report")))
        }

        @Test("the report parses, and its times are in order")
        func report() throws {
            let folder = try TemporaryDirectory()
            let guest = try VMMProcess(
                "hello", "code=5", processors: 2, options: ["--report", folder.path("report")],
                folder: folder,
                name: "reported")
            #expect(try guest.wait() == 5)
            let report = try report(folder)
            #expect(report.name == "reported" && report.kernel.hasSuffix("/hello.elf"))
            #expect(report.memory_bytes == 16 << 20 && report.cpus == 2)
            #expect(report.end == "exited" && report.status == 5 && report.clock == "CLOCK_MONOTONIC")
            #expect(report.doorbell_count == 1)
            let ring = try #require(report.doorbells.first)
            #expect(ring.number == 1 && ring.processor == 0)
            let times = [report.started_ns, report.built_ns, report.entered_ns, ring.ns, report.ended_ns]
            #expect(times == times.sorted() && times[0] > 0)
        }

        @Test("a kernel's name may hold anything")
        func quoting() throws {
            let folder = try TemporaryDirectory()
            let kernel = try folder.write(
                "a \"b\" \\ \t\n\u{1F} ü.elf", TinyPayload.file(TinyPayload.exit(0)))
            let guest = try VMMProcess(
                kernel: kernel, options: ["--report", folder.path("report")], folder: folder)
            #expect(try guest.wait() == 0)
            #expect(try report(folder).kernel == kernel)
        }

        @Test("a guest that rings endlessly costs 64 entries")
        func endlessRing() throws {
            let folder = try TemporaryDirectory()
            let kernel = try folder.write("tiny.elf", TinyPayload.file(TinyPayload.ringEndlessly))
            func ring(seconds: Int) throws -> Report {
                let options = ["--report", folder.path("report"), "--timeout", "\(seconds)"]
                #expect(
                    try VMMProcess(kernel: kernel, options: options, folder: folder).wait(within: 120) == 124)
                return try self.report(folder)
            }
            var report = try ring(seconds: 1)
            // On a busy host that may be too short.
            if report.doorbell_count <= 1000 { report = try ring(seconds: 30) }
            #expect(report.doorbell_count > 1000)
            #expect(report.doorbells.count == 64)
            #expect(report.doorbells.allSatisfy { $0.number == 7 })
        }

        @Test("the guest's record is locked while it runs, and nobody's after", arguments: [true, false])
        func record(isConfined: Bool) throws {
            let folder = try TemporaryDirectory()
            let options = [
                "--state-dir", try folder.stateDirectory(), "--guest-index", "3", "--image", "greetings",
                "--confine", isConfined ? "on" : "off",
            ]
            let guest = try VMMProcess(
                "hello", "do=sleep", processors: 2, options: options, folder: folder, name: "r")
            func fields() -> [Substring] { folder.text("state/guests/r").split(separator: "\n") }
            #expect(eventually { fields().contains("state=running") })
            #expect(fields().contains("pid=\(guest.child.identifier)"))
            #expect(fields().contains("name=r") && fields().contains("memory_bytes=\(16 << 20)"))
            #expect(fields().contains("cpus=2") && fields().contains("image=greetings"))
            #expect(fields().contains("guest_index=3"))
            #expect(fields().contains("confined=\(isConfined ? "yes" : "no")"))
            #expect(isLocked(folder.path("state/guests/r")))
            guest.child.kill(SIGTERM)
            #expect(try guest.wait() == 143)
            // A confined process removes nothing: whoever looks next does (`expectNothingLeft` in other suites).
            #expect(try folder.namesOfState("guests") == (isConfined ? ["r"] : []))
            #expect(!isLocked(folder.path("state/guests/r")))
        }
    }
}
