import Foundation
import LinuxHost
import MingleSupport
import Testing
import TestSupport
import VMMProtocol

/// A payload guest that `mingle run` started, with sharing on.
final class SharingGuest {
    struct Setting {
        var payload = "fill"
        var arguments: String
        /// nil: the default, of the guest alone.
        var domain: String? = "lab"
        var window = "auto"
        var megabytes = 32
        var processors = 1
        var index = 0
        /// What is to go wrong; see FaultInjection.
        var faults: String?
        /// Words in front of the VMM's.
        var wrapper = ""
        /// Further words for `mingle run`.
        var options: [String] = []
    }

    let name: String
    let pages: Int
    private let tool: CommandLineTool
    private let child: ChildProcess
    private var connection: ControlClient?
    /// The VMM: `mingle run` becomes it.
    var process: Int32 { child.identifier }

    init(_ tool: CommandLineTool, _ name: String, _ setting: Setting) throws {
        self.name = name
        self.tool = tool
        pages = setting.megabytes << 8
        var options = ["--window", setting.window, "--share-cpu", "100"]
        options += setting.domain.map { ["--domain", $0] } ?? ["--sharing", "builtin"]
        var variables: [String: String] = [:]
        if setting.faults != nil || !setting.wrapper.isEmpty {
            let faults = setting.faults.map { " --inject '\($0)'" } ?? ""
            // The lock of whoever starts guests would be held as long as the wrapper lives: it is given up here.
            let script = """
                #!/bin/bash
                words=()
                while [ $# -gt 0 ]; do
                  if [ -n "\(setting.wrapper.isEmpty ? "" : "yes")" ] && [ "$1" = --admission ]
                  then eval "exec $2>&-"; shift 2; else words+=("$1"); shift; fi
                done
                exec \(setting.wrapper) '\(Locations.vmm)' "${words[@]}"\(faults)

                """
            let path = try tool.folder.write("vmm-\(name)", Array(script.utf8))
            try FileManager.default.setAttributes([.posixPermissions: 0o700], ofItemAtPath: path)
            variables["MINGLE_VMM"] = path
        }
        child = try tool.start(
            [
                "run", "--name", name, "--kernel", "payload:\(setting.payload)",
                "--memory", "\(setting.megabytes)M", "--cpus", "\(setting.processors)",
                // Ends by itself even if the tests are killed.
                "--guest-index", "\(setting.index)", "--timeout", "1800",
            ] + options + setting.options + ["--"] + setting.arguments.split(separator: " ").map(String.init),
            output: name, variables: variables)
    }

    var output: String { tool.folder.text(name) }
    /// The whole lines of its output that begin so.
    private func lines(_ start: String) -> [Substring] {
        output.split(separator: "\n", omittingEmptySubsequences: false).dropLast().filter {
            $0.hasPrefix(start)
        }
    }
    /// The last of them.
    func line(_ start: String) -> String? { lines(start).last.map(String.init) }

    /// The number that such a line gives to a word: `word=number`.
    func number(_ word: String, in start: String) throws -> Int {
        for field in (line(start) ?? "").split(separator: " ") where field.hasPrefix(word + "=") {
            if let number = Int(field.dropFirst(word.count + 1)) { return number }
        }
        throw Failure("guest \(name) said no \(word) in a line '\(start)': \(output)")
    }

    // MARK: its control socket

    @discardableResult
    func ask(_ command: String) throws -> String { try control().ask(command) }

    func control() throws -> ControlClient {
        if let connection { return connection }
        let path = tool.stateDirectory + "/control/" + name
        var client: ControlClient?
        try wait("its control socket answers") {
            client = try? ControlClient(guest: name, path: path, seconds: 300)
            return client != nil
        }
        guard let client else { throw Failure("guest \(name) has no control socket") }
        connection = client
        return client
    }

    /// What `stats` says of the guest, and of its sharing.
    func statistics() throws -> (guest: GuestStatistics, sharing: SharingFigures) {
        let guest = try control().statistics()
        guard let sharing = guest.sharing else {
            throw Failure("guest \(name) has no statistics of sharing: \(guest)")
        }
        return (guest, sharing)
    }

    func count(_ figure: KeyPath<SharingFigures, UInt64>) throws -> Int {
        Int(clamping: try statistics().sharing[keyPath: figure])
    }
    func flag(_ figure: KeyPath<SharingFigures, Bool>) throws -> Bool {
        try statistics().sharing[keyPath: figure]
    }

    var homeBytes: Int { get throws { Int(clamping: try statistics().guest.homeBytes) } }

    /// Says a line to guests and waits until each has said a new one that begins so.
    /// - Returns: those lines.
    @discardableResult
    static func say(_ command: String, to guests: [SharingGuest], answer: String) throws -> [String] {
        let before = guests.map { $0.lines(answer).count }
        for guest in guests { try guest.ask("type \(command)") }
        return try zip(guests, before).map { guest, count in
            try guest.wait("it answers '\(answer)' to '\(command)'") { guest.lines(answer).count > count }
            return guest.line(answer) ?? ""
        }
    }

    /// Has guests compare all that they wrote with what is there.
    static func check(_ guests: [SharingGuest]) throws {
        for (guest, answer) in zip(guests, try say("check", to: guests, answer: "fill: check ")) {
            #expect(answer.hasPrefix("fill: check ok"), "guest \(guest.name): \(answer)")
        }
    }

    /// `sharing off`, until every page is home.
    func goHome() throws {
        try ask("sharing off")
        try wait("it is home") { try flag(\.isHome) }
    }

    /// Waits until passes that began after this moment have found nothing to do.
    static func settle(_ guests: [SharingGuest]) throws {
        let scans = try guests.map { try $0.count(\.fullScans) }
        for (guest, old) in zip(guests, scans) {
            try guest.wait("it settles") {
                if try guest.count(\.fullScans) > old + 3, try guest.flag(\.isSettled) { return true }
                // Where nothing changes passes are seldom; a new policy, though it is the old one, is a reason for one.
                for guest in guests { try guest.ask("share-cpu 100") }
                usleep(250_000)
                return false
            }
        }
    }

    /// Digests of every page while the guest stands still.
    func digests() throws -> [PageDigest] {
        try ask("pause")
        defer { _ = try? ask("resume") }
        return try control().digests(everyPage: true)
    }

    /// The frame behind every page.
    func frames() throws -> [UInt64?] { try FrameNumbers.ofGuest(name, process: process, pages: pages) }

    // MARK: waiting, ending

    func waitUntilFilled() throws { try wait("it is filled") { line("fill: ready") != nil } }

    /// Waits for what must come.
    /// - Parameter seconds: of ``Pace``.
    func wait(_ what: String, within seconds: Double = 60, _ condition: () throws -> Bool) throws {
        let start = Pace.now
        while try !condition() {
            if let status = child.finish() {
                throw Failure(
                    "guest \(name) ended with \(status) before \(what): \(output)\n"
                        + tool.folder.text(name + ".errors"))
            }
            if Pace.now - start > seconds {
                let known = ["stats", "debug"].map { command in
                    connection.flatMap { try? $0.ask(command) } ?? ""
                }
                throw Failure(
                    "guest \(name), \(seconds) s later, not yet: \(what). \(known[0])\n\(output)\n\(known[1])\n"
                        + HostState.description)
            }
            usleep(10_000)
        }
    }

    /// The status of its VMM; minus the signal that killed it.
    func end(within seconds: Double = 60) throws -> Int32 {
        let status = try child.wait(within: seconds)
        connection = nil
        return status
    }

    /// Whether its VMM has ended.
    var hasEnded: Bool { child.finish() != nil }

    /// Ends guests by what they are told.
    static func exit(_ guests: [SharingGuest]) throws {
        for guest in guests { try guest.ask("type exit") }
        for guest in guests { #expect(try guest.end() == 0, "guest \(guest.name): \(guest.output)") }
    }
}

extension CommandLineTool {
    /// The broker as it is now, which must answer.
    func broker() throws -> BrokerReport {
        guard let report = try BrokerReport.read(socket: brokerSocket) else {
            throw Failure("no broker answers: \(folder.text("mingle/broker.log"))")
        }
        return report
    }

    /// All guests ended, the broker follows, and nothing is left.
    /// - Parameter log: a broker that failed has left its log.
    func expectNothingLeft(but log: String? = nil) throws {
        _ = try run(["ps"])
        #expect(
            eventually(within: 20) { processes == [] && leftovers.allSatisfy { $0 == log } },
            "\(processes) \(leftovers)")
    }
}
