import Foundation
import LinuxHost
import MingleSupport
import Testing
import TestSupport
import VMMProtocol

extension HostKVM {
    @Suite("What the VMM writes about its guest")
    struct RecordTests {
        private func report(_ folder: TemporaryDirectory) throws -> GuestReport {
            try #require(GuestReport(json: folder.text("report")))
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
            #expect(report.memoryBytes == 16 << 20 && report.cpuCount == 2)
            #expect(report.end == "exited" && report.status == 5 && report.clock == "CLOCK_MONOTONIC")
            #expect(report.ringCount == 1)
            let ring = try #require(report.rings.first)
            #expect(ring.number == 1 && ring.processor == 0)
            let times = [report.started, report.built, try #require(report.entered), ring.at, report.ended]
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
            func ring(seconds: Int) throws -> GuestReport {
                let options = ["--report", folder.path("report"), "--timeout", "\(seconds)"]
                #expect(
                    try VMMProcess(kernel: kernel, options: options, folder: folder).wait(within: 120) == 124)
                return try self.report(folder)
            }
            var report = try ring(seconds: 1)
            // On a busy host that may be too short.
            if report.ringCount <= 1000 { report = try ring(seconds: 30) }
            #expect(report.ringCount > 1000)
            #expect(report.rings.count == 64)
            #expect(report.rings.allSatisfy { $0.number == 7 })
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
