import CLinux
import Foundation
import GuestMemory
import LinuxHost
import Testing
import TestSupport

@testable import MingleSupport

extension HostKVM {
    @Suite("What a guest was given by whoever started it")
    struct Surroundings {
        private static let sleeper = [
            "run", "--memory", "8M", "--domain", "lab", "--serial", "none", "--timeout", "300", "--kernel",
            "payload:hello",
        ]

        private static func isRunning(_ words: String...) -> Bool {
            guard
                let child = try? ChildProcess(
                    "/bin/sh", ["-c", words.joined(separator: " ")], streams: [.nothing, .nothing, .nothing])
            else { return false }
            return (try? child.wait(within: 20)) == 0
        }

        /// Whether a process can be had without a right of root's.
        private static let dropsRights = geteuid() == 0 && isRunning("setpriv --bounding-set=-sys_nice true")
        private static let canMount = isRunning("unshare -m sh -c 'mount -t tmpfs none /mnt'")

        /// Starts a guest through a script of /bin/sh that ends with `exec "$@"`.
        private func start(
            _ tool: CommandLineTool, _ name: String, _ script: String, groups: [String] = []
        ) throws -> ChildProcess {
            let words = [CommandLineTool.path] + Self.sleeper + ["--name", name, "--", "do=sleep"]
            let joining = groups.map { "echo $$ > \($0) || exit 99; " }.joined()
            var environment = ["XDG_RUNTIME_DIR": tool.folder.path]
            if let payloads = Locations.payloads {
                environment["MINGLE_SHARE"] = (payloads as NSString).deletingLastPathComponent
            }
            return try ChildProcess(
                "/bin/sh", ["-c", joining + script, tool.folder.path(name)] + words, environment: environment,
                streams: [
                    .nothing, .into(tool.folder.path(name)), .into(tool.folder.path(name + ".errors")),
                ])
        }

        private func broker(_ tool: CommandLineTool) throws -> BrokerReport? {
            try BrokerReport.read(socket: tool.brokerSocket)
        }

        private func waitForClients(_ count: Int, _ tool: CommandLineTool, _ names: [String]) throws {
            let joined = try eventually { try broker(tool)?.clients.count == count }
            if !joined {
                throw Failure("not \(count) clients: \(names.map { tool.folder.text($0 + ".errors") })")
            }
        }

        @Test(
            "the broker leaves the limited group that it was started in, and takes its own with it",
            .enabled(if: LimitedGroup.problem == nil, "\(LimitedGroup.problem ?? "")"))
        func group() throws {
            let tool = try CommandLineTool()
            let group = try LimitedGroup(bytes: 60 << 20)
            let first = try start(tool, "first", "exec \"$@\"", groups: group.joining)
            try waitForClients(1, tool, ["first"])
            let report = try #require(try broker(tool))
            #expect(report.hasOwnCgroup && report.constraints.filter(\.limitsMemory) == [])
            let supervisor = try #require(report.processes.first)
            #expect(report.group?.hasSuffix("/mingle-broker.\(supervisor)") == true)
            let hierarchy = try #require(ControlGroupHierarchy.ofMemory())
            let folder = try #require(report.group.flatMap { hierarchy.folder(of: $0) })
            // What others share is more than the group of the first may hold.
            let others = try (0..<2).map { index in
                try tool.start(
                    [
                        "run", "--name", "other\(index)", "--memory", "112M", "--domain", "lab", "--serial",
                        "none", "--share-cpu", "100%", "--timeout", "300", "--kernel", "payload:fill", "--",
                        "common=0.8",
                    ], output: "other\(index)")
            }
            let isFull = try eventually(within: 120) {
                (try broker(tool)?.domains.first?.allocatedBytes ?? 0) > 64 << 20
            }
            #expect(isFull)
            #expect(group.kills == 0 && first.finish() == nil)
            #expect(try broker(tool)?.processes == report.processes)
            withExtendedLifetime(others) {}
            _ = try tool.run(["stop", "--all", "--force"])
            #expect(eventually { tool.processes.isEmpty && tool.leftovers.isEmpty })
            #expect(eventually { !SystemCall.exists(folder) })
        }

        @Test(
            "the group of a broker that was killed is removed by the next start",
            .enabled(if: LimitedGroup.problem == nil, "\(LimitedGroup.problem ?? "")"))
        func killed() throws {
            let tool = try CommandLineTool()
            let first = try start(tool, "first", "exec \"$@\"")
            try waitForClients(1, tool, ["first"])
            let report = try #require(try broker(tool))
            let hierarchy = try #require(ControlGroupHierarchy.ofMemory())
            let folder = try #require(report.group.flatMap { hierarchy.folder(of: $0) })
            #expect(report.hasOwnCgroup && SystemCall.exists(folder))
            for process in report.processes { kill(process, SIGKILL) }
            let second = try start(tool, "second", "exec \"$@\"")
            try waitForClients(2, tool, ["first", "second"])
            #expect(try broker(tool)?.group != report.group)
            #expect(eventually { !SystemCall.exists(folder) })
            withExtendedLifetime((first, second)) {}
            _ = try tool.run(["stop", "--all", "--force"])
        }

        /// It would ask for calls that no filter allows, and the crash's own words would be lost.
        @Test("Swift's handler of crashes is off in a guest's process")
        func crashes() throws {
            let tool = try CommandLineTool()
            let guest = try start(tool, "g", "exec \"$@\"")
            try waitForClients(1, tool, ["g"])
            let process = guest.identifier
            let variables = try Data(contentsOf: URL(fileURLWithPath: "/proc/\(process)/environ"))
                .split(separator: 0).map { String(decoding: $0, as: UTF8.self) }
            #expect(variables.contains("SWIFT_BACKTRACE=enable=no"), "\(variables)")
            _ = try tool.run(["stop", "g"])
            _ = try guest.wait()
        }

        @Test("limits, priority and processors of the first guest are not the broker's")
        func lifted() throws {
            let tool = try CommandLineTool()
            let first = try start(
                tool, "first",
                "exec 9> \"$0.kept\"; ulimit -S -f 100000; ulimit -S -n 60; ulimit -S -t 1000; exec taskset 1 nice -n 15 \"$@\""
            )
            try waitForClients(1, tool, ["first"])
            let report = try #require(try broker(tool))
            let kept = report.constraints.filter { $0.kind != .priority }
            // What the tests themselves were given, the broker has, too.
            #expect(kept.allSatisfy { !$0.isTighter(than: ProcessConstraint.all()) })
            // A file that whoever started the guest had open; only root may look.
            let open = report.processes.flatMap { process in
                let folder = "/proc/\(process)/fd"
                return ((try? FileManager.default.contentsOfDirectory(atPath: folder)) ?? []).compactMap {
                    try? FileManager.default.destinationOfSymbolicLink(atPath: folder + "/" + $0)
                }
            }
            #expect(!open.contains { $0.hasSuffix(".kept") })
            if geteuid() == 0 { #expect(!open.isEmpty) }
            if geteuid() == 0 { #expect(!report.constraints.contains { $0.kind == .priority }) }
            let worker = try #require(report.processes.last)
            let status = try String(contentsOfFile: "/proc/\(worker)/limits", encoding: .utf8)
            let size = status.split(separator: "\n").first { $0.hasPrefix("Max file size") }
            #expect(size?.contains("100000") == false && size?.contains("102400000") == false)
            withExtendedLifetime(first) {}
            _ = try tool.run(["stop", "--all", "--force"])
        }

        @Test(
            "a limit that cannot be lifted and lets nothing be stored stays with its guest",
            .enabled(if: dropsRights, "only root can be without a right of root's"),
            arguments: ["ulimit -f 100000", "ulimit -n 56"])
        func useless(_ limit: String) throws {
            let tool = try CommandLineTool()
            let first = try start(
                tool, "first", "\(limit); exec setpriv --bounding-set=-sys_resource \"$@\"")
            #expect(eventually { tool.guests == ["first"] })
            let errors = tool.folder.text("first.errors")
            #expect(errors.contains("no frame broker") && errors.contains(String(limit.prefix(9))))
            #expect(!errors.contains("Optional") && errors.contains("cannot be lifted"))
            #expect(try broker(tool) == nil)
            // The next guest starts one that is as good as any, and the first joins it.
            let second = try start(tool, "second", "exec \"$@\"")
            try waitForClients(2, tool, ["first", "second"])
            let said = tool.folder.text("second.errors")
            #expect(!said.contains("warning") && !said.contains("error"), "\(said)")
            let kept = try #require(try broker(tool)).constraints
            #expect(kept.allSatisfy { !$0.isTighter(than: ProcessConstraint.all()) })
            withExtendedLifetime((first, second)) {}
            _ = try tool.run(["stop", "--all", "--force"])
        }

        @Test(
            "what the broker cannot lift is named by itself, doctor and a guest that would suffer",
            .enabled(if: dropsRights, "only root can be without a right of root's"))
        func named() throws {
            let tool = try CommandLineTool()
            let first = try start(
                tool, "first", "exec nice -n 15 setpriv --bounding-set=-sys_nice \"$@\"")
            try waitForClients(1, tool, ["first"])
            #expect(!tool.folder.text("first.errors").contains("nice value"))
            let second = try start(tool, "second", "exec \"$@\"")
            try waitForClients(2, tool, ["first", "second"])
            #expect(tool.folder.text("second.errors").contains("keeps limits"))
            #expect(tool.folder.text("second.errors").contains("nice value 15"))
            #expect(try tool.run(["broker", "status"]).contains("nice value 15"))
            let kept = try tool.json(["broker", "status", "--json"])["kept_limits"] as? [String]
            #expect(kept?.contains("nice value 15") == true)
            let doctor = try tool.start(["doctor"])
            _ = try doctor.wait()
            let text = tool.folder.text("output")
            #expect(text.contains("mingle.broker") && text.contains("nice value 15"))
            withExtendedLifetime((first, second)) {}
            _ = try tool.run(["stop", "--all", "--force"])
        }

        private static let processHierarchy = ControlGroupHierarchy.all().first {
            $0.controllers.contains("pids")
        }

        @Test(
            "too few processes are an error with its reason, and never a guest that hangs",
            .enabled(
                if: geteuid() == 0 && processHierarchy != nil,
                "needs root and the pids hierarchy of version 1"),
            arguments: 1...5, [[], ["--domain", "lab"]])
        func processes(_ count: Int, _ sharing: [String]) throws {
            let tool = try CommandLineTool()
            let parent = try #require(Self.processHierarchy?.folder(of: "/"))
            let folder = parent + "/mingle-test-\(UUID().uuidString)"
            try #require(mkdir(folder, 0o755) == 0)
            defer { _ = eventually(within: 20) { rmdir(folder) == 0 } }
            try Data("\(count)\n".utf8).write(to: URL(fileURLWithPath: folder + "/pids.max"))
            let run = try tool.start(
                ["run", "--memory", "8M", "--kernel", "payload:hello"] + sharing + [
                    "--", "do=exit", "code=7",
                ],
                groups: [folder + "/cgroup.procs"])
            let status = try run.wait(within: 60)
            let errors = tool.folder.text("output.errors")
            // 125 when a thread of ours is missing, 123 when it is one of KVM's.
            #expect([7, 125, 123].contains(status), "\(status): \(errors)")
            if status != 7 { #expect(errors.contains("pids.max"), "\(errors)") }
            if count == 1 { #expect(status != 7) }
            // One that shares has two threads more: that which merges, and that which measures prices.
            if count >= (sharing.isEmpty ? 4 : 5) { #expect(status == 7) }
        }

        @Test(
            "a disk that is full refuses the guest, says why and leaves nothing",
            .enabled(if: canMount, "needs mounts of its own: run as root"))
        func fullDisk() throws {
            let tool = try CommandLineTool()
            let state = tool.stateDirectory
            // A guest that runs already is on the same disk, and stays what it is.
            let script = """
                mkdir -m 700 \(state) && mount -t tmpfs -o size=64k,mode=700 none \(state) || exit 98
                "$0" ps > /dev/null
                "$0" run --name early --memory 8M --serial none --timeout 60 --kernel payload:hello -- do=sleep &
                until "$0" ps | grep -q 'early.*running'; do sleep 0.05; done
                dd if=/dev/zero of=\(state)/ballast bs=1k 2> /dev/null
                "$0" run --name late --memory 8M --kernel payload:hello -- do=exit code=0
                echo "late: $?"
                ls -A \(state)/guests
                "$0" ps
                "$0" stats > /dev/null && echo "stats: $?"
                "$0" stop --all --force; echo "stop: $?"
                wait
                """
            let run = try ChildProcess(
                "/usr/bin/unshare", ["-m", "sh", "-c", script, CommandLineTool.path],
                environment: [
                    "XDG_RUNTIME_DIR": tool.folder.path,
                    "MINGLE_SHARE": (try #require(Locations.payloads) as NSString).deletingLastPathComponent,
                ],
                streams: [
                    .nothing, .into(tool.folder.path("output")), .into(tool.folder.path("errors")),
                ])
            _ = try run.wait(within: 90)
            let lines = tool.folder.text("output").split(separator: "\n").map(String.init)
            let errors = tool.folder.text("errors")
            #expect(lines.contains("late: 125"), "\(lines) \(errors)")
            #expect(
                errors.contains("no space is left for it") && errors.contains("XDG_RUNTIME_DIR"), "\(errors)")
            #expect(!lines.contains("late"))
            #expect(lines.contains { $0.hasPrefix("early ") && $0.contains("running") })
            #expect(
                lines.contains("stats: 0") && lines.contains("early: stopped") && lines.contains("stop: 0"))
        }

        @Test("a guest whose record is damaged is listed, asked, counted and stopped like the others")
        func damaged() throws {
            let tool = try CommandLineTool()
            let guests = try ["bad", "good"].map { try start(tool, $0, "exec \"$@\"") }
            #expect(eventually { tool.guests.sorted() == ["bad", "good"] })
            #expect(
                try eventually {
                    let rows = try tool.run(["ps"]).split(separator: "\n")
                    return rows.count { $0.contains("running") } == 2
                })
            let path = tool.stateDirectory + "/guests/bad"
            let file = open(path, O_WRONLY)
            let zeros = [UInt8](repeating: 0, count: 129)
            try #require(pwrite(file, zeros, zeros.count, 0) == 129 && ftruncate(file, 129) == 0)
            close(file)
            let rows = try #require(
                try JSONSerialization.jsonObject(with: Data(tool.run(["ps", "--json"]).utf8))
                    as? [[String: Any]])
            let bad = try #require(rows.first { $0["name"] as? String == "bad" })
            #expect(bad["state"] as? String == "damaged" && bad["memory_bytes"] is NSNull)
            #expect(bad["pid"] as? Int == Int(guests[0].identifier))
            #expect(rows.contains { $0["name"] as? String == "good" && $0["state"] as? String == "running" })
            #expect(try tool.run(["ps"]).contains("damaged"))
            // Its control socket is as good as before: statistics, and with them the size for admission.
            let statistics = try tool.json(["stats", "--json"])
            #expect((statistics["guests"] as? [Any])?.count == 2)
            #expect(try tool.run(["stats", "bad"]).contains("bad"))
            let hello = ["run", "--memory", "8M", "--kernel", "payload:hello", "--serial", "none"]
            _ = try tool.run(hello)
            let taken = try tool.start(hello + ["--name", "bad"])
            #expect(try taken.wait() == 125)
            #expect(tool.folder.text("output.errors").contains("process \(guests[0].identifier)"))
            #expect(try tool.run(["stop", "--all"]).contains("bad: stopped"))
            #expect(try guests.map { try $0.wait(within: 30) } == [143, 143])
            #expect(tool.guests == [])
        }
    }
}
