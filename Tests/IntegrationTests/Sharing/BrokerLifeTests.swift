import Foundation
import LinuxHost
import MingleSupport
import TestSupport
import Testing
import VMMProtocol

private let namespaceProblem: String? =
    if geteuid() != 0 { "namespaces of one's own need root" } else if access("/usr/bin/unshare", X_OK) != 0 {
        "there is no /usr/bin/unshare: install util-linux"
    } else { nil }

extension Trait where Self == ConditionTrait {
    fileprivate static var needsNamespaces: Self {
        .enabled(if: namespaceProblem == nil, Comment(rawValue: namespaceProblem ?? "namespaces: there"))
    }
}

extension HostKVM {
    /// What becomes of guests when processes of the broker are lost, late, or cannot tell who is who.
    @Suite("the broker's life, as guests see it")
    struct BrokerLife {
        private static let contents = "common=0.5 unique=0.2"
        private static let ownProcesses = ["/usr/bin/unshare", "--pid", "--fork", "--kill-child"]

        private static func start(_ tool: CommandLineTool, _ count: Int) throws -> [SharingGuest] {
            let guests = try (0..<count).map {
                try SharingGuest(
                    tool, "g\($0)", .init(arguments: contents, domain: "lab", megabytes: 8, index: $0))
            }
            try waitUntilShared(guests)
            return guests
        }

        private static func waitUntilShared(_ guests: [SharingGuest]) throws {
            for guest in guests {
                try guest.waitUntilFilled()
                let common = try guest.number("common", in: "fill: ready")
                try guest.wait("its common pages are shared") { try guest.count(\.pagesMapped) >= common }
            }
        }

        private static func killBoth(_ tool: CommandLineTool) throws {
            let processes = try tool.broker().processes
            try #require(processes.count == 2)
            // The one that is left would restore the other.
            processes.forEach { kill($0, SIGSTOP) }
            processes.forEach { kill($0, SIGKILL) }
        }

        @Test("a supervisor that is killed is replaced, and guests notice nothing")
        func supervisor() throws {
            let tool = try CommandLineTool()
            let guests = try Self.start(tool, 2)
            let before = try tool.broker()
            kill(try #require(before.processes.first), SIGKILL)
            let isReplaced = try eventually {
                let processes = try tool.broker().processes
                return processes.count == 2 && processes[0] != before.processes[0]
            }
            #expect(isReplaced)
            let after = try tool.broker()
            #expect(after.processes.last == before.processes.last)
            #expect(after.domains.map(\.epoch) == before.domains.map(\.epoch))
            #expect(try guests.map { try $0.count(\.brokerConnections) } == [1, 1])
            let third = try SharingGuest(
                tool, "g2", .init(arguments: Self.contents, domain: "lab", megabytes: 8, index: 2))
            try Self.waitUntilShared(guests + [third])
            try SharingGuest.check(guests + [third])
            try SharingGuest.exit(guests + [third])
            try tool.expectNothingLeft(but: "broker.log")
        }

        @Test("when supervisor and worker are gone, the next command brings a broker back")
        func both() throws {
            let tool = try CommandLineTool()
            let guests = try Self.start(tool, 2)
            try Self.killBoth(tool)
            for guest in guests { try guest.wait("it noticed") { try !guest.flag(\.hasBroker) } }
            // While none can be started, the views say so.
            let nothing = ["MINGLE_BROKER": "/nonexistent/mingle-broker"]
            for arguments in [["ps", "--json"], ["stats", "--json"], ["ps"], ["stats"]] {
                #expect(try tool.start(arguments, output: "lost", variables: nothing).wait() == 0)
                let said = tool.folder.text("lost")
                #expect(
                    said.contains(arguments.count > 1 ? "\"broker_lost\": true" : "lab, no broker"), "\(said)"
                )
                #expect(tool.folder.text("lost.errors").contains("the frame broker is lost"))
            }
            #expect(tool.folder.text("lost.errors").contains("nobody listens"))
            _ = try tool.run(["ps"])
            #expect(try tool.broker().processes.count == 2)
            for guest in guests {
                try guest.wait("it joined the next broker") {
                    try guest.count(\.brokerConnections) == 2 && guest.flag(\.hasBroker)
                }
            }
            try Self.waitUntilShared(guests)
            try SharingGuest.check(guests)
            let said = try tool.run(["stats", "--json"])
            #expect(!said.contains("\"broker_lost\": true"))
            // Who shares nothing wants no broker.
            for guest in guests { try guest.goHome() }
            try Self.killBoth(tool)
            _ = try tool.run(["ps"])
            _ = try tool.run(["stats"])
            #expect(try BrokerReport.read(socket: tool.brokerSocket) == nil)
            for guest in guests { try guest.ask("sharing on") }
            _ = try tool.run(["ps"])
            try Self.waitUntilShared(guests)
            try SharingGuest.check(guests)
            try SharingGuest.exit(guests)
            try tool.expectNothingLeft(but: "broker.log")
        }

        /// Who does not share is offered the next broker all the same: it may come to share again, and then there is nobody to ask.
        @Test("a guest that is turned off while its broker is replaced shares again when it is turned on")
        func off() throws {
            let tool = try CommandLineTool()
            let guests = try Self.start(tool, 2)
            try guests[1].goHome()
            kill(try #require(try tool.broker().processes.last), SIGKILL)
            for guest in guests {
                try guest.wait("it joined the next worker") { try guest.count(\.brokerConnections) == 2 }
            }
            try guests[1].ask("sharing on")
            try Self.waitUntilShared(guests)
            // With the supervisor gone as well, the command that turns it on brings a broker back.
            for guest in guests { try guest.goHome() }
            try Self.killBoth(tool)
            _ = try tool.run(["share", "on", "g0", "g1"])
            try Self.waitUntilShared(guests)
            try SharingGuest.check(guests)
            try SharingGuest.exit(guests)
            try tool.expectNothingLeft(but: "broker.log")
        }

        /// The path that the guest knows leads nowhere: what it is handed is all it has.
        @Test("a guest joins over a connection that it is handed")
        func offer() throws {
            let tool = try CommandLineTool()
            let guests = try Self.start(tool, 2)
            try Self.killBoth(tool)
            for guest in guests { try guest.wait("it noticed") { try !guest.flag(\.hasBroker) } }
            #expect(throws: SupportError.self) { try guests[0].ask("broker") }
            let elsewhere = StateDirectory(path: tool.folder.path + "/elsewhere")
            try elsewhere.prepare()
            let socket = try BrokerService.ensureRunning(in: elsewhere)
            for guest in guests { try guest.control().offer(broker: socket) }
            for guest in guests {
                try guest.wait("it joined") { try guest.count(\.brokerConnections) == 2 }
            }
            try Self.waitUntilShared(guests)
            try SharingGuest.check(guests)
            let broker = try #require(try BrokerReport.read(socket: socket))
            // The guests are its clients, not the one that connected for them.
            #expect(Set(broker.clients.compactMap(\.process)) == Set(guests.map(\.process)))
            try SharingGuest.exit(guests)
            #expect(eventually { !FileManager.default.fileExists(atPath: socket) })
        }

        @Test("a guest that is started while the broker does not answer joins when it does")
        func late() throws {
            let tool = try CommandLineTool()
            let first = try SharingGuest(
                tool, "g0", .init(arguments: Self.contents, domain: "lab", megabytes: 8, index: 0))
            try first.wait("it joined") { try first.flag(\.hasBroker) }
            let processes = try tool.broker().processes
            processes.forEach { kill($0, SIGSTOP) }
            let second = try SharingGuest(
                tool, "g1", .init(arguments: Self.contents, domain: "lab", megabytes: 8, index: 1))
            try second.waitUntilFilled()
            try second.wait("it tried") { try second.statistics().sharing.brokerError != nil }
            let said = tool.folder.text("g1.errors")
            #expect(said.contains("only pages of zeros are shared until there is one"), "\(said)")
            processes.forEach { kill($0, SIGCONT) }
            try Self.waitUntilShared([first, second])
            try SharingGuest.check([first, second])
            let domains = try #require(try tool.json(["stats", "--json"])["domains"] as? [[String: Any]])
            #expect(domains.count == 1 && (domains[0]["guests"] as? [String])?.count == 2)
            try SharingGuest.exit([first, second])
        }

        /// All clients have one process number for such a broker.
        @Test("a broker that sees no process frees nothing that a frozen guest maps", .needsNamespaces)
        func frozen() throws {
            let tool = try CommandLineTool()
            try StateDirectory(path: tool.stateDirectory).prepare()
            let words =
                Self.ownProcesses + [
                    Locations.vmm.replacingOccurrences(of: "mingle-vmm", with: "mingle-broker"), "supervise",
                    tool.stateDirectory,
                ]
            let broker = try ChildProcess(
                words[0], Array(words.dropFirst()), streams: [.nothing, .nothing, .nothing])
            #expect(eventually { FileManager.default.fileExists(atPath: tool.brokerSocket) })
            let guests = try Self.start(tool, 3)
            #expect(try tool.broker().clients.allSatisfy { $0.process == nil })
            let worker = try #require(try tool.broker().processes.last)
            kill(worker, SIGSTOP)
            // Each has something to say, and gets no answer in time.
            for guest in guests { try guest.ask("type rewrite 0.02") }
            for guest in guests {
                try guest.wait("it lost the broker") { try !guest.flag(\.hasBroker) }
            }
            kill(guests[0].process, SIGSTOP)
            kill(worker, SIGCONT)
            for guest in guests[1...] {
                try guest.wait("it joined anew") { try guest.flag(\.hasBroker) }
            }
            // The others have moved over: each is one client again.
            let hasMoved = try eventually { try tool.broker().clients.count { $0.isSilent } == 1 }
            let known = try tool.broker()
            #expect(hasMoved, "\(known)")
            kill(guests[0].process, SIGCONT)
            try SharingGuest.check(guests)
            try guests[0].wait("it joined anew") { try guests[0].flag(\.hasBroker) }
            try SharingGuest.check(guests)
            try SharingGuest.exit(guests)
            _ = try broker.wait(within: 30)
        }

        @Test("a guest of another PID namespace is stopped, and nobody else", .needsNamespaces)
        func stop() throws {
            let tool = try CommandLineTool()
            let words =
                Self.ownProcesses + [
                    CommandLineTool.path, "run", "--name", "inside", "--kernel", "payload:hello", "--memory",
                    "16M",
                    "--timeout", "120", "--", "do=sleep",
                ]
            let inside = try ChildProcess(
                words[0], Array(words.dropFirst()), environment: ["XDG_RUNTIME_DIR": tool.folder.path],
                streams: [
                    .nothing, .into(tool.folder.path("inside")), .into(tool.folder.path("inside.errors")),
                ])
            let record = tool.stateDirectory + "/guests/inside"
            func field(_ name: String) -> String? {
                let text = (try? String(contentsOfFile: record, encoding: .utf8)) ?? ""
                return text.split(separator: "\n").first { $0.hasPrefix(name + "=") }
                    .map { String($0.dropFirst(name.count + 1)) }
            }
            #expect(eventually { field("state") == "running" }, "\(tool.folder.text("inside.errors"))")
            // In its own namespace it is the first process.
            #expect(field("pid") == "1")
            let list = try JSONSerialization.jsonObject(with: Data(tool.run(["ps", "--json"]).utf8))
            let row = try #require((list as? [[String: Any]])?.first)
            let number = try #require((row["pid"] as? NSNumber)?.int32Value)
            #expect(number > 1 && (row["resident_bytes"] as? NSNumber)?.intValue ?? 0 > 0)
            // From a namespace beside it nothing can be done, and nothing is.
            let other = Self.ownProcesses + [CommandLineTool.path, "stop", "inside"]
            let refused = try ChildProcess(
                other[0], Array(other.dropFirst()), environment: ["XDG_RUNTIME_DIR": tool.folder.path],
                streams: [.nothing, .nothing, .into(tool.folder.path("refused"))])
            #expect(try refused.wait(within: 60) == 1)
            #expect(tool.folder.text("refused").contains("PID namespace"), "\(tool.folder.text("refused"))")
            #expect(kill(number, 0) == 0 && inside.finish() == nil)
            #expect(try tool.run(["stop", "inside"]) == "inside: stopped\n")
            #expect(try inside.wait(within: 30) == 143)
        }
    }
}
