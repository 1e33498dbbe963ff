import Foundation
@testable import LinuxHost
import Synchronization
import TestSupport
import Testing

@testable import MingleSupport
import VMMProtocol

/// Stands for the VMM of a guest that answers whatever it likes, or ends while it is asked.
private final class LyingGuest: Sendable {
    /// What it says to a command; nil: it ends instead.
    typealias Answer = @Sendable (String) -> String?
    private let record: Mutex<HeldLock?>

    init(_ name: String, in folder: TemporaryDirectory, _ answer: @escaping Answer) throws {
        let path = try folder.write("mingle/guests/\(name)", MingleSupportTests.record(name: name).text)
        record = Mutex(try HeldLock(path))
        let door = try PacketSocket.listen(at: folder.path + "/mingle/control/\(name)", backlog: 4)
        let thread = Thread { [self] in serve(door, answer) }
        thread.start()
    }

    private func serve(_ door: borrowing PacketSocket, _ answer: Answer) {
        var buffer = [UInt8](repeating: 0, count: 4096)
        while record.withLock({ $0 != nil }) {
            guard door.waitForInput(until: monotonicNanoseconds() + 100_000_000),
                let client = try? door.accept()
            else { continue }
            while client.waitForInput(until: monotonicNanoseconds() + 1_000_000_000),
                case .packet(let bytes, _) = client.receive(into: &buffer)
            {
                guard let text = answer(String(decoding: bytes, as: UTF8.self)) else { return end() }
                _ = client.send(Array(text.utf8))
            }
        }
    }

    func end() { record.withLock { $0 = nil } }

    /// An answer to `stats`.
    static func statistics(_ name: String, domain: String, window: String = "pause") -> String {
        let counts = [
            "full_scans", "pages_hashed", "pages_merged", "pages_mapped", "pages_zero",
            "pages_unshared_total", "pages_unshared", "pages_volatile", "mappings", "metadata_bytes",
            "windows", "cpu_seconds", "guest_lost_seconds", "guest_wanted_seconds", "guest_loss_percent",
            "window_p50_us", "window_p99_us", "window_max_us",
        ].map { "\"\($0)\": 0" }.joined(separator: ", ")
        return "{\"name\": \"\(name)\", \"state\": \"running\", \"memory_bytes\": 4096, \"home_bytes\": 0,"
            + " \"pressure\": \"\(window)\", \"sharing\": {\"enabled\": true, \"home\": false, \"domain\": \"\(domain)\","
            + " \"window\": \"\(window)\", \"hold\": \"\(window)\", \"broker_connected\": true, \(counts)}}"
    }
}

/// What other guests, or their VMMs, do to commands that ask them.
@Suite struct UntrustedGuestTests {
    private let temporary: TemporaryDirectory
    private let state: StateDirectory

    init() throws {
        temporary = try TemporaryDirectory()
        state = try temporary.state()
    }

    /// Escape sequences in one byte (C1) and in two, in JSON and as they are.
    private static let commands = "\u{1B}[2J\u{9B}2J\u{7F}"
    private static let quoted = "\\u001b[2J\\u009b2J\\u007f"

    @Test(arguments: [
        ["ps"], ["ps", "--json"], ["stats"], ["stats", "--json"], ["share", "explain", "evil"],
        ["share", "explain", "evil", "--json"], ["share", "explain", "evil", "0"], ["share", "off", "evil"],
    ])
    func whatAGuestSaysMovesNoCursor(words: [String]) throws {
        let guest = try LyingGuest("evil", in: temporary) { command in
            switch command {
            case "stats": LyingGuest.statistics("evil", domain: Self.quoted, window: Self.quoted)
            case "explain": "domain=\(Self.commands)\npages=0\nhold=\(Self.commands)\n"
            case "explain 0": "reason=zero\nbacking=\(Self.commands)\nmappers=0\nwith=\n"
            default: "error: \(Self.commands)"
            }
        }
        let process = Process()
        process.executableURL = URL(fileURLWithPath: try CommandLineTests.executable())
        process.arguments = words
        process.environment = ["XDG_RUNTIME_DIR": temporary.path]
        let said = Pipe()
        process.standardInput = FileHandle.nullDevice
        process.standardOutput = said
        process.standardError = said
        try process.run()
        process.waitUntilExit()
        let text = String(decoding: said.fileHandleForReading.readDataToEndOfFile(), as: UTF8.self)
        guest.end()
        let controls = text.unicodeScalars.filter { $0.properties.generalCategory == .control }
        #expect(Set(controls) == ["\n"], "\(words): \(text.debugDescription)")
        #expect(text.contains("[2J"), "it was asked: \(text)")
    }

    /// Whose word counts only beside that of the guest that somebody asked about.
    @Test func whoEndsMeanwhileHoldsNothing() throws {
        let guest = try LyingGuest("other", in: temporary) { command in
            command == "stats" ? LyingGuest.statistics("other", domain: "x") : nil
        }
        #expect(try SharingExplanation.contents(of: ["other"], state) == [])
        guest.end()
        // One that declines, and lives, is a problem.
        let living = try LyingGuest("living", in: temporary) { _ in "error: no" }
        #expect(throws: SupportError.self) { try SharingExplanation.contents(of: ["living"], state) }
        living.end()
    }

    @Test func whoEndsMeanwhileIsNoProblemOfStatistics() throws {
        let living = try LyingGuest("living", in: temporary) { _ in
            LyingGuest.statistics("living", domain: "x")
        }
        let ending = try LyingGuest("ending", in: temporary) { _ in nil }
        let (overview, problems) = try SharingOverview.read(in: state, names: [])
        #expect(overview.guests.map(\.name) == ["living"] && problems == [])
        ending.end()
        let declining = try LyingGuest("declining", in: temporary) { _ in "error: no" }
        #expect(try SharingOverview.read(in: state, names: []).1.count == 1)
        declining.end()
        living.end()
    }
}
