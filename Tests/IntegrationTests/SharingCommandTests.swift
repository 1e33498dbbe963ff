import Foundation
import LinuxHost
import MingleSupport
import Testing
import TestSupport

extension [String: Any] {
    fileprivate func number(_ part: String, _ key: String) throws -> Double {
        guard let value = (self[part] as? [String: Any])?[key] as? NSNumber else {
            throw Failure("no number \(part).\(key)")
        }
        return value.doubleValue
    }
}

extension HostKVM {
    @Suite("mingle, sharing memory")
    struct SharingCommands {
        private static let fill = "zero=0.2 uniform=0.2 common=0.4 unique=0.2"

        @Test(
            "density saves what can be saved, loses nothing and leaves nothing",
            arguments: ["userfaultfd", "pause"])
        func density(window: String) throws {
            let tool = try CommandLineTool()
            let report = tool.folder.path("report.json")
            let options = window == "pause" ? ["--window", "pause"] : []
            // A busy host takes longer.
            var json: [String: Any] = [:]
            for duration in [5, 60] {
                _ = try tool.run(
                    [
                        "density", "--guests", "3", "--memory", "64M", "--image", "payload:fill",
                        "--arguments", Self.fill, "--duration", "\(duration)", "--verify", "--json", report,
                    ] + options)
                json = try #require(
                    try JSONSerialization.jsonObject(with: Data(tool.folder.bytes("report.json")))
                        as? [String: Any])
                if (try? json.number("engine", "seconds_to_95_percent")) != nil { break }
            }
            let ideal = try json.number("memory", "ideal_saved_bytes")
            // Of 61 MiB that each guest writes, all but 20 % of each and one set of the rest.
            #expect(ideal > 100e6)
            #expect(try json.number("memory", "counted_saved_bytes") > 0.9 * ideal)
            #expect(try json.number("memory", "saved_bytes") > 0.9 * ideal)
            #expect(try json.number("engine", "seconds_to_95_percent") > 0)
            #expect(try json.number("engine", "mappings") > 0)
            #expect(try json.number("verification", "mismatches") == 0)
            // Each page is looked at by the payload and by its digest; pages of zeros by the payload alone.
            #expect(
                try json.number("verification", "pages_checked") > 1.7 * 0.9
                    * json.number("memory", "touched_pages"))
            #expect((json["guests"] as? [[String: Any]])?.count == 3)
            #expect(tool.leftovers == [])
            #expect(tool.processes == [])
        }

        @Test("density lets merging wait for all guests, and types")
        func together() throws {
            let tool = try CommandLineTool()
            var samples: [[String: Any]] = []
            var guests: [[String: Any]] = []
            // A busy host takes longer.
            for duration in [4, 60] {
                _ = try tool.run([
                    "density", "--guests", "2", "--memory", "32M", "--image", "payload:work", "--arguments",
                    "kind=write pages=3000 seconds=2", "--share-when-up", "--type", "go",
                    "--duration", "\(duration)", "--no-baseline", "--json", tool.folder.path("report.json"),
                ])
                let json = try #require(
                    try JSONSerialization.jsonObject(with: Data(tool.folder.bytes("report.json")))
                        as? [String: Any])
                samples = try #require((json["engine"] as? [String: Any])?["samples"] as? [[String: Any]])
                guests = try #require(json["guests"] as? [[String: Any]])
                let isDone = guests.allSatisfy { ($0["output"] as? String ?? "").contains("work: verify") }
                if isDone, samples.last?["saved_pages"] as? Int ?? 0 > 2000 { break }
            }
            #expect(samples.first?["saved_pages"] as? Int == 0)
            #expect(samples.last?["saved_pages"] as? Int ?? 0 > 2000)
            #expect(guests.count == 2)
            for guest in guests {
                let output = guest["output"] as? String ?? ""
                #expect(
                    output.contains("work: write p50_ns=") && output.contains("work: verify ok"), "\(output)")
            }
            #expect(tool.processes == [])
        }

        @Test("guests of one domain share, those of their own do not")
        func domains() throws {
            let tool = try CommandLineTool()
            func run(_ name: String, _ options: [String], index: Int) throws -> ChildProcess {
                try tool.start(
                    [
                        "run", "--name", name, "--kernel", "payload:fill", "--memory", "32M", "--serial",
                        "none",
                        "--timeout", "1800", "--guest-index", "\(index)", "--log-level", "info",
                    ] + options + ["--", "common=0.6", "unique=0.2"], output: name)
            }
            let guests = [
                try run("a", ["--domain", "lab"], index: 0), try run("b", ["--domain", "lab"], index: 1),
                try run("c", ["--sharing", "builtin"], index: 2),
                try run("d", ["--sharing", "builtin"], index: 3),
            ]
            // 60 % of the free pages of 32 MiB are the same in both.
            let wanted = 4000
            let isShared = try eventually(within: 60) {
                let domains =
                    try tool.json(["broker", "status", "--json"])["domains"] as? [[String: Any]] ?? []
                let lab = domains.first { $0["name"] as? String == "lab" }
                return (lab?["pages_sharing"] as? Int ?? 0) > wanted
            }
            #expect(isShared)
            let broker = try tool.json(["broker", "status", "--json"])
            let clients = try #require(broker["clients"] as? [[String: Any]])
            #expect(clients.count == 4)
            for client in clients {
                let references = client["references"] as? Int ?? -1
                let isLab = client["domain"] as? String == "lab"
                #expect(isLab ? references > wanted : references >= 0 && references < 100, "\(client)")
            }
            let stats = try tool.json(["stats", "--json"])
            let domains = try #require(stats["domains"] as? [[String: Any]])
            #expect(Set(domains.compactMap { $0["name"] as? String }) == ["lab", "(c)", "(d)"])
            #expect(tool.folder.text("a.errors").contains("domain lab, window "))

            // Each page has one reason, so the counts are the guest's memory.
            func explain(_ name: String) throws -> [String: Int] {
                let answer = try tool.json(["share", "explain", name, "--json"])
                let reasons = try #require(answer["reasons"] as? [String: Int])
                #expect(answer["pages"] as? Int == 32 << 8)
                #expect(reasons.values.reduce(0, +) == 32 << 8, "\(name): \(reasons)")
                return reasons
            }
            #expect(try explain("a")["shared"] ?? 0 > wanted)
            // What c holds is held in no other guest of its domain, but by all of the others.
            let isSeen = try eventually(within: 60) { try explain("c")["other-domain"] ?? 0 > wanted }
            #expect(isSeen)
            #expect(try explain("c")["shared"] == nil)
            let shared = try stride(from: 300, to: 8192, by: 512).first { page in
                try tool.run(["share", "explain", "a", "\(page)"]).contains(": shared")
            }
            let page = try #require(shared)
            let told = try tool.run(["share", "explain", "a", String(format: "0x%x", page)])
            #expect(told.contains("b, page \(page)") && told.contains("2 pages map the same"), "\(told)")

            // Sharing can be turned off while they run: then all of a's memory is its own again.
            _ = try tool.run(["share", "cpu", "100%", "a"])
            _ = try tool.run(["share", "off", "a"])
            let isHome = try eventually(within: 60) {
                let guests = try tool.json(["stats", "a", "--json"])["guests"] as? [[String: Any]] ?? []
                return (guests.first?["sharing"] as? [String: Any])?["home"] as? Bool == true
            }
            #expect(isHome)
            _ = try tool.run(["stop", "--all"])
            for guest in guests { _ = try guest.wait() }
            #expect(eventually(within: 20) { tool.processes == [] && tool.leftovers == [] })
        }

        @Test("a guest that is declined says that it does not share, and says so when it does")
        func declined() throws {
            let tool = try CommandLineTool()
            // The state directory as mingle makes it.
            _ = try tool.run(["ps"])
            try FileManager.default.createDirectory(
                atPath: tool.stateDirectory, withIntermediateDirectories: true,
                attributes: [.posixPermissions: 0o700])
            let program = Locations.vmm.replacingOccurrences(of: "mingle-vmm", with: "mingle-broker")
            func startBroker(_ options: [String]) throws {
                let starter = try ChildProcess(
                    program, ["start", tool.stateDirectory, "firstClient=120000"] + options,
                    streams: [.nothing, .nothing, .nothing])
                #expect(try starter.wait(within: 60) == 0)
                #expect(eventually(within: 60) { (try? BrokerReport.read(socket: tool.brokerSocket)) != nil })
            }
            try startBroker(["clientsOfProcess=0"])
            let guest = try tool.start(
                [
                    "run", "--name", "a", "--kernel", "payload:fill", "--memory", "32M", "--serial", "none",
                    "--timeout", "100", "--domain", "lab", "--", "common=0.6",
                ], output: "a")
            let warning = "mingle: warning: a does not share memory, but for pages of zeros: "
            #expect(eventually(within: 60) { tool.folder.text("a.errors").contains(warning) })
            let errors = tool.folder.text("a.errors")
            #expect(errors.contains("no process may have more than 0") && !errors.contains(" shares memory"))
            // It is replaced by one that takes clients.
            let supervisor = try #require(try BrokerReport.read(socket: tool.brokerSocket)?.processes.first)
            kill(supervisor, SIGTERM)
            #expect(eventually(within: 60) { !FileManager.default.fileExists(atPath: tool.brokerSocket) })
            try startBroker([])
            #expect(
                eventually(within: 60) {
                    tool.folder.text("a.errors").contains("a shares memory now: domain lab, window ")
                })
            #expect(
                tool.folder.text("a.errors").components(separatedBy: warning).count == 2, "it is said once")
            _ = try tool.run(["stop", "--all"])
            _ = try guest.wait()
            #expect(eventually(within: 20) { tool.processes == [] && tool.leftovers == [] })
        }

        /// With two guests, which are up.
        private static func startDensity(_ tool: CommandLineTool) throws -> ChildProcess {
            let density = try tool.start([
                "density", "--guests", "2", "--memory", "32M", "--image", "payload:fill", "--arguments",
                "common=0.5", "--duration", "1800", "--no-baseline",
            ])
            #expect(eventually { tool.folder.text("output.errors").contains("2 of 2 guests are up") })
            return density
        }

        @Test("a killed density leaves no guest, and the next command clears its files")
        func killed() throws {
            let tool = try CommandLineTool()
            let density = try Self.startDensity(tool)
            // Two guests, the broker and its supervisor.
            #expect(tool.processes.count == 4)
            density.kill(SIGKILL)
            _ = try density.wait()
            #expect(eventually(within: 20) { tool.processes == [] })
            _ = try tool.run(["ps"])
            #expect(tool.leftovers == [])
        }

        @Test("a density that is interrupted puts everything away", arguments: [SIGINT, SIGTERM])
        func interrupted(signal: Int32) throws {
            let tool = try CommandLineTool()
            let density = try Self.startDensity(tool)
            density.kill(signal)
            #expect(try density.wait() == 128 + signal)
            #expect(tool.processes == [])
            #expect(tool.leftovers == [])
        }

        @Test("a guest that ends ends the experiment, with its last words")
        func ended() throws {
            let tool = try CommandLineTool()
            let density = try tool.start([
                "density", "--guests", "2", "--memory", "32M", "--image", "payload:fill", "--arguments",
                "bogus=1",
            ])
            #expect(try density.wait() == 1)
            let errors = tool.folder.text("output.errors")
            #expect(
                errors.contains("it ended before its time (status 2)") && errors.contains("bogus"),
                "\(errors)")
            #expect(tool.processes == [])
            #expect(tool.leftovers == [])
        }
    }
}
