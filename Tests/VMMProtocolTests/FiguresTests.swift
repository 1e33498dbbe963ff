import Foundation
import GuestMemory
import MingleSupport
import TestSupport
import Testing
import VMMProtocol

/// What a VMM writes, the command line tool reads: over random values of every member.
@Suite struct FiguresTests {
    private struct Values {
        var random: SeededGenerator
        mutating func count() -> UInt64 { [0, 1, .max, random.next()].randomElement(using: &random)! }
        mutating func flag() -> Bool { .random(using: &random) }
        mutating func number() -> Double {
            [0, 0.25, 5e-05, 1 / 3, 1e18, .random(in: 0...1e6, using: &random)].randomElement(using: &random)!
        }
        mutating func word() -> String { JSONTests.words.randomElement(using: &random)! }
        mutating func maybe<Value>(_ value: Value) -> Value? { flag() ? value : nil }
        mutating func one<Value>(of values: [Value]) -> Value { values.randomElement(using: &random)! }

        mutating func figures() -> SharingFigures {
            var result = SharingFigures()
            (result.isEnabled, result.holdsMerges, result.isHome) = (flag(), flag(), flag())
            (result.hasBroker, result.isSettled, result.absorbsGaps) = (flag(), flag(), flag())
            (result.domain, result.window) = (word(), word())
            (result.brokerError, result.failure, result.hold) = (maybe(word()), maybe(word()), maybe(word()))
            let counts: [WritableKeyPath<SharingFigures, UInt64>] = [
                \.fullScans, \.pagesHashed, \.pagesMerged, \.pagesMapped, \.pagesZero, \.pagesUnshared,
                \.pagesUnsharedTotal, \.pagesVolatile, \.mappings, \.putOffNoMemory, \.putOffNoMapping,
                \.metadataBytes, \.windows, \.brokerConnections, \.pagesRehomed, \.mismatches, \.arrangements,
            ]
            for path in counts { result[keyPath: path] = count() }
            let numbers: [WritableKeyPath<SharingFigures, Double>] = [
                \.cpuSeconds, \.lostSeconds, \.wantedSeconds, \.lossPercent, \.windowMedian, \.window99,
                \.windowMaximum,
            ]
            for path in numbers { result[keyPath: path] = number() }
            return result
        }

        mutating func statistics() -> GuestStatistics {
            var result = GuestStatistics()
            result.name = word()
            result.state = one(of: GuestStatistics.State.allCases)
            (result.memoryBytes, result.homeBytes, result.bootSeconds) = (count(), count(), maybe(number()))
            result.pausedFor = maybe(GuestStatistics.memoryIsShort)
            (result.pressure, result.broker) = (maybe(word()), maybe(word()))
            result.ram = maybe(one(of: GuestMemory.Backing.allCases))
            result.sharing = maybe(figures())
            return result
        }

        mutating func report() -> GuestReport {
            var result = GuestReport()
            (result.name, result.kernel, result.end) = (word(), word(), word())
            (result.memoryBytes, result.cpuCount, result.status) = (count(), one(of: [0, 1, 32]), .max)
            (result.started, result.built, result.entered, result.ended) = (
                count(), count(), maybe(count()), count()
            )
            result.ringCount = one(of: [0, 3, 1 << 40])
            result.rings = (0..<one(of: [0, 1, 3])).map {
                .init(number: one(of: [0, Doorbell.ready, .max]), processor: $0, at: count())
            }
            return result
        }
    }

    @Test func statisticsAreRead() {
        var values = Values(random: SeededGenerator(for: "statistics"))
        for _ in 0..<1000 {
            let sent = values.statistics()
            let text = sent.json.text(levels: 0)
            #expect(!text.contains("\n"))
            #expect(GuestStatistics(json: text) == sent, "\(text)")
        }
    }

    @Test func reportsAreRead() {
        var values = Values(random: SeededGenerator(for: "reports"))
        for _ in 0..<1000 {
            let sent = values.report()
            #expect(GuestReport(json: sent.text) == sent, "\(sent.text)")
        }
    }

    @Test func theReportHasAMemberALine() {
        var report = GuestReport()
        (report.name, report.kernel, report.end) = ("a", "/k", "exited")
        report.rings = [.init(number: 1, processor: 0, at: 7), .init(number: 2, processor: 1, at: 9)]
        #expect(
            report.text == """
                {
                  "name": "a",
                  "kernel": "/k",
                  "memory_bytes": 0,
                  "cpus": 0,
                  "end": "exited",
                  "status": 0,
                  "clock": "CLOCK_MONOTONIC",
                  "started_ns": 0,
                  "built_ns": 0,
                  "entered_ns": null,
                  "ended_ns": 0,
                  "doorbell_count": 0,
                  "doorbells": [{"number": 1, "processor": 0, "ns": 7}, {"number": 2, "processor": 1, "ns": 9}]
                }

                """)
    }

    /// Each member is written once, and must be there to be read unless older VMMs lack it.
    @Test func everyMemberCounts() {
        func check<Object: JSONObject>(_ object: Object) {
            func read(_ pairs: [(key: String, value: JSONValue)]) -> JSONValue? {
                Object(json: JSONValue.object(pairs).text())?.json
            }
            var pairs = object.pairs { $0.visit($1) }
            #expect(Set(pairs.map(\.key)).count == pairs.count)
            #expect(read(pairs) == object.json)
            #expect(read(pairs + [("of_a_newer_version", .array([.null]))]) == object.json)
            for (index, pair) in pairs.enumerated() {
                pairs[index].value = .object([])
                #expect(read(pairs) == nil, "\(pair.key)")
                pairs[index].value = pair.value
            }
        }
        var statistics = GuestStatistics()
        statistics.sharing = SharingFigures()
        check(statistics)
        check(SharingFigures())
        check(GuestReport())
        check(GuestReport.Ring())
    }

    /// docs/control.md names every member of what a VMM says, and none that there is not.
    @Test func membersAreDocumented() throws {
        let root = URL(filePath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
            .deletingLastPathComponent()
        let text = try String(contentsOf: root.appending(path: "docs/control.md"), encoding: .utf8)
        let section = try #require(text.components(separatedBy: "\n## stats\n").last)
            .components(separatedBy: "\n## ")[0]
        let parts = section.components(separatedBy: "\nPages, unless said otherwise: ")
        let table = try parts[0].split(separator: "\n").filter { $0.hasPrefix("| `") }
            .flatMap { line in try keys(in: String(#require(line.split(separator: "|").first))) }
        #expect(Set(table) == keys(of: GuestStatistics()))
        // Words of a value stand in brackets.
        let prose = parts[1].replacing(/\([^)]*\)/, with: "")
        #expect(Set(keys(in: prose)) == keys(of: SharingFigures()))
    }

    private func keys(of object: some JSONObject) -> Set<String> {
        Set(object.pairs { $0.visit($1) }.map(\.key))
    }
    private func keys(in text: String) -> [String] { text.matches(of: /`([a-z0-9_]+)`/).map { String($0.1) } }
}
