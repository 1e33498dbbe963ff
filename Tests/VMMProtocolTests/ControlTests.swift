import Foundation
import TestSupport
import Testing
import VMMProtocol

/// Commands of the control socket, and what answers them.
@Suite struct ControlTests {
    private static func random(_ random: inout SeededGenerator) -> ControlCommand {
        let flag = Bool.random(using: &random)
        return switch Int.random(in: 0..<11, using: &random) {
        case 0: .statistics
        case 1: .pause
        case 2: .resume
        case 3: .type(["", "go", " ", "  a  b ", "stats", "ü\tx"].randomElement(using: &random)!)
        case 4: .digest(everyPage: flag, isChecksum: .random(using: &random))
        case 5: .sharing(isOn: flag)
        case 6: .shareCPU([0.001, 5, 99.5, 100].randomElement(using: &random)!)
        case 7: .explain(page: flag ? .random(in: 0...Int.max, using: &random) : nil)
        case 8: .broker
        case 9: .memory
        default: .debug
        }
    }

    @Test func whatIsWrittenIsRead() throws {
        var generator = SeededGenerator(for: "commands")
        for _ in 0..<1000 {
            let command = Self.random(&generator)
            #expect(try ControlCommand(command.text) == command, "\(command.text)")
        }
        for text in ["", "ok", "error", "error: ", "a\nb"] {
            for answer in [ControlAnswer.said(text), .refused(text), .done]
            where answer != .said("error: ") {
                #expect(ControlAnswer(answer.text) == answer)
            }
        }
        #expect(ControlAnswer.done.text == "ok" && ControlAnswer.refused("no").text == "error: no")
    }

    @Test(
        arguments: [
            ("", "unknown command; use stats, pause"), ("Stats", "unknown command"),
            ("digest all", "digest takes the words pages and checksum, or none"),
            ("sharing", "sharing on, or sharing off"), ("sharing ON", "sharing on, or sharing off"),
            ("share-cpu 0", "a percentage above 0 and up to 100"), ("share-cpu", "a percentage"),
            ("explain x", "explain takes the number of a page, or nothing"),
        ])
    func mistakesAreNamed(text: String, reason: String) {
        let error = #expect(throws: ControlCommand.Mistake.self) { try ControlCommand(text) }
        #expect(error?.reason.contains(reason) == true, "\(String(describing: error))")
    }

    /// The table of docs/control.md has every command as it is written, and what it has is one.
    @Test func commandsAreDocumented() throws {
        let root = URL(filePath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
            .deletingLastPathComponent()
        let text = try String(contentsOf: root.appending(path: "docs/control.md"), encoding: .utf8)
        let table = try #require(text.components(separatedBy: "\n## ").first).split(separator: "\n")
            .filter { $0.hasPrefix("| `") }
        let documented = table.flatMap { line in
            (line.split(separator: "|").first ?? "").matches(of: /`([^`]+)`/).map { String($0.1) }
        }
        let values = ["TEXT": "TEXT", "N": "7", "PAGE": "7"]
        let commands = try documented.map { words in
            try ControlCommand(
                words.split(separator: " ").map { values[String($0)] ?? String($0) }.joined(separator: " "))
        }
        var wanted: [ControlCommand] = [
            .statistics, .pause, .resume, .type("TEXT"), .sharing(isOn: true), .sharing(isOn: false),
            .shareCPU(7), .explain(page: nil), .explain(page: 7), .broker, .memory, .debug,
        ]
        for everyPage in [false, true] {
            for isChecksum in [false, true] {
                wanted.append(.digest(everyPage: everyPage, isChecksum: isChecksum))
            }
        }
        #expect(commands.count == wanted.count)
        for command in wanted { #expect(commands.contains(command), "\(command.text)") }
    }

    private func received(_ packets: [ArraySlice<UInt8>]) -> [UInt8]? {
        var left = packets[...]
        var bytes: [UInt8] = []
        let isWhole = PageDigests.receive(from: { Array(left.popFirst() ?? []) }) { bytes += $0 }
        return isWhole && left.isEmpty ? bytes : nil
    }

    @Test func digestsComeBack() {
        var generator = SeededGenerator(for: "digests")
        for count in [0, 1, 2047, 2048, 2049, 5000] {
            let digests = (0..<count * PageDigests.size).map { _ in generator.byte() }
            let packets = PageDigests.packets(digests)
            #expect(packets.allSatisfy { $0.count <= ControlAnswer.packetLimit })
            #expect(received(packets) == digests)
            if count > 0 { #expect(received(Array(packets.dropLast())) == nil) }
        }
        let head = Array("digest 1".utf8)[...]
        let digest = [UInt8](repeating: 1, count: PageDigests.size)
        let broken: [[ArraySlice<UInt8>]] = [
            [], [Array("digest".utf8)[...]], [Array("digest -1".utf8)[...]], [Array("ok".utf8)[...]],
            [head, digest.dropLast()], [head, (digest + digest)[...]], [head, []],
        ]
        for packets in broken { #expect(received(packets) == nil) }
    }
}
