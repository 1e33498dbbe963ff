import Foundation
import GuestMemory
import LinuxHost
import MingleSupport
import Testing
import VMMProtocol
import TestSupport

extension HostKVM {
    /// The VMM is at a limit of its process while it shares: what needs more is put off, and the guest loses nothing.
    @Suite("at the limits of the process")
    struct Limits {
        /// Lowers what a process may map to what it has, and a little.
        private static func limitAddressSpace(of process: Int32, spare: Int) throws {
            let status = try #require(SystemCall.text(of: "/proc/\(process)/status"))
            let kibibytes = Int(try #require(SmallFile.table(status)["VmSize"]))
            let child = try ChildProcess(
                "/usr/bin/env",
                ["prlimit", "--pid", "\(process)", "--as=\(kibibytes << 10 + spare):unlimited"],
                streams: [
                    .file("/dev/null", O_RDONLY), .file("/dev/null", O_WRONLY), .file("/dev/null", O_WRONLY),
                ])
            #expect(try child.wait(within: 30) == 0, "prlimit of util-linux")
        }

        private static func mappings(of process: Int32) throws -> Int {
            let file = try OwnedDescriptor.open("/proc/\(process)/maps", flags: O_RDONLY)
            var (lines, offset) = (0, UInt64(0))
            while true {
                let part = try file.read(count: 1 << 16, at: offset)
                if part.isEmpty { return lines }
                lines += part.count { $0 == UInt8(ascii: "\n") }
                offset += UInt64(part.count)
            }
        }

        private func expectNothingLost(_ pair: Churn.Pair, _ title: String, _ tool: CommandLineTool) throws {
            for result in try pair.report(title) {
                #expect(result.lost == 0 && result.torn == 0 && result.foreign == 0)
                #expect(result.status == 0)
            }
            try tool.expectNothingLeft()
        }

        /// Waits until each guest has looked at its pages, or put that off, so many times more.
        private func wait(_ pair: Churn.Pair, turns: Int) throws {
            for guest in pair.guests {
                func count() throws -> Int {
                    try guest.count(\.fullScans) + guest.count(\.putOffNoMemory)
                }
                let before = try count()
                try guest.wait("\(turns) turns more") { try count() > before + turns }
            }
        }

        private static let spares = [64 << 10, -(16 << 20)]
        @Test("no address space is left, windows by userfaultfd", .needs(.userfaultfd), arguments: spares)
        func addressSpaceUserfaultfd(spare: Int) throws {
            try addressSpace(window: "userfaultfd", spare: spare)
        }
        @Test("no address space is left, windows by pauses", arguments: spares)
        func addressSpacePause(spare: Int) throws { try addressSpace(window: "pause", spare: spare) }

        private func addressSpace(window: String, spare: Int) throws {
            let tool = try CommandLineTool()
            let pair = try Churn.Pair(tool, window: window, domain: "tight", faults: Churn.eager)
            try pair.wait(for: 100)
            for guest in pair.guests { try Self.limitAddressSpace(of: guest.process, spare: spare) }
            try wait(pair, turns: 20)
            // What others ask of it meanwhile is answered.
            for guest in pair.guests {
                for _ in 0..<100 { try guest.ask("stats") }
                // These take some hundred KiB, of what the heap had in reserve.
                #expect(try guest.digests().count == guest.pages)
                #expect(try !guest.flag(\.isHome))
            }
            try expectNothingLost(pair, "no address space, \(window), \(spare >> 10) KiB left", tool)
        }

        /// A byte for each page of a large guest is more than the heap has in reserve.
        @Test("an explanation for which there is no address space is refused")
        func explanation() throws {
            let tool = try CommandLineTool()
            let guest = try SharingGuest(
                tool, "g",
                .init(
                    payload: "hello", arguments: "do=sleep", megabytes: 16 << 10, options: ["--overcommit"]))
            try guest.wait("it has its broker") { try guest.flag(\.hasBroker) }
            try Self.limitAddressSpace(of: guest.process, spare: 64 << 10)
            let error = #expect(throws: SupportError.self) { try guest.ask("explain") }
            #expect(error?.description.contains("no memory left") == true, "\(error as Any)")
            #expect(try guest.ask("explain 0").contains("reason="))
            _ = try tool.run(["stop", "g"])
            #expect(try guest.end() == 143)
        }

        @Test("the reserve of the heap is never a huge page")
        func reserve() throws {
            let tool = try CommandLineTool()
            let guest = try SharingGuest(
                tool, "g", .init(arguments: "zero=0.1", domain: "lab", megabytes: 8, index: 0))
            try guest.waitUntilFilled()
            let smaps = try #require(SystemCall.text(of: "/proc/\(guest.process)/smaps", limit: 1 << 26))
            var flags: [Substring]?
            MappingUse.forEach(smaps) { if flags == nil, $0.path == "[heap]" { flags = $0.flags } }
            #expect(flags?.contains("nh") == true, "\(flags ?? [])")
            try SharingGuest.exit([guest])
        }

        @Test(
            "other mappings take all that are left, windows by userfaultfd", .needs(.userfaultfd),
            .needs(.faults))
        func mappingsUserfaultfd() throws { try mappings(window: "userfaultfd") }
        @Test("other mappings take all that are left, windows by pauses", .needs(.faults))
        func mappingsPause() throws { try mappings(window: "pause") }

        private func mappings(window: String) throws {
            let limit = try #require(
                Int(
                    String(contentsOfFile: "/proc/sys/vm/max_map_count", encoding: .utf8)
                        .trimmingCharacters(in: .whitespacesAndNewlines)))
            try #require(
                limit < 100_000, "vm.max_map_count is \(limit): the process would need too many mappings")
            let tool = try CommandLineTool()
            let pair = try Churn.Pair(tool, window: window, domain: "crowd", faults: "eager,crowd-after=200")
            for guest in pair.guests {
                try guest.wait("its mappings are used up", within: 90) {
                    try Self.mappings(of: guest.process) >= limit - 4 && guest.count(\.putOffNoMapping) > 0
                }
            }
            try wait(pair, turns: 20)
            // The way home needs mappings as well; none is lost on it.
            let before = try pair.guests[0].count(\.putOffNoMapping)
            try pair.guests[0].ask("sharing off")
            try pair.guests[0].wait("it is home, or that is put off") {
                try pair.guests[0].flag(\.isHome) || pair.guests[0].count(\.putOffNoMapping) > before
            }
            try pair.guests[0].ask("sharing on")
            try wait(pair, turns: 5)
            for guest in pair.guests { #expect(try guest.count(\.putOffNoMapping) > 0) }
            try expectNothingLost(pair, "no mappings, \(window)", tool)
        }

        // Who reads where nothing is mapped is stopped only by a pause.
        @Test(
            "mappings fail now and then, windows by userfaultfd", .needs(.userfaultfd), .needs(.faults),
            arguments: ["fail-mappings=3", "fail-mappings=7"])
        func failingMappingsUserfaultfd(fault: String) throws {
            try failingMappings(fault: fault, window: "userfaultfd")
        }
        @Test(
            "mappings fail now and then, windows by pauses", .needs(.faults),
            arguments: ["fail-mappings=3", "fail-mappings=7", "lose-mappings=5"])
        func failingMappingsPause(fault: String) throws {
            try failingMappings(fault: fault, window: "pause")
        }

        private func failingMappings(fault: String, window: String) throws {
            let tool = try CommandLineTool()
            let pair = try Churn.Pair(tool, window: window, domain: "fail", faults: "eager,\(fault)")
            for guest in pair.guests {
                // What fails while a stretch is put together beside is often made good at once, and nothing is put off: but each
                // window makes a call at least, and one in so many fails.
                try guest.wait("mappings were made, and failed", within: 90) {
                    try guest.count(\.pagesMerged) > 100
                        && (guest.count(\.putOffNoMapping) > 10 || guest.count(\.windows) > 100)
                }
            }
            try wait(pair, turns: 10)
            try expectNothingLost(pair, "\(fault), \(window)", tool)
        }
    }
}
