@testable import SharingTestKit
import Foundation
import TestSupport
import Testing

@testable import Sharing

/// Random operations against the oracle; a failing sequence is cut down before it is shown.
@Suite struct ModelTests {
    static func operations(_ setup: ModelRun.Setup, seed: UInt64, count: Int) -> [Operation] {
        var maker = OperationMaker(
            generator: SeededGenerator(seed: seed), guests: setup.guests, pages: setup.pages)
        return (0..<count).map { _ in maker.operation() }
    }

    /// Removes what is not needed for the failure.
    static func shrink(_ operations: [Operation], _ setup: ModelRun.Setup) throws -> [Operation] {
        var current = operations
        var size = max(1, current.count / 2)
        while true {
            var start = 0
            while start < current.count {
                var candidate = current
                candidate.removeSubrange(start..<min(start + size, current.count))
                if try ModelRun(setup).run(candidate) != nil { current = candidate } else { start += size }
            }
            if size == 1 { return current }
            size /= 2
        }
    }

    static func search(_ setup: ModelRun.Setup, _ purpose: String, runs: Int, length: Int) throws {
        var seeds = SeededGenerator(for: purpose)
        for run in 0..<runs {
            let operations = operations(setup, seed: seeds.next(), count: length)
            guard let failure = try ModelRun(setup).run(operations) else { continue }
            let short = try shrink(operations, setup)
            let text = short.map { "    \($0)" }.joined(separator: "\n")
            Issue.record(
                """
                \(purpose), MINGLE_TEST_SEED=\(seeds.seed), run \(run): \(failure)
                cut down: \(try ModelRun(setup).run(short) ?? "passes")
                \(text)
                """)
            return
        }
    }

    static var runs: Int { Int(environmentNumber("MINGLE_MODEL_STEPS") ?? 12_000) / 300 }

    @Test(arguments: [2, 3, 4]) func everythingHappens(guests: Int) throws {
        var setup = ModelRun.Setup()
        setup.guests = guests
        try Self.search(setup, "model, \(guests) guests", runs: Self.runs, length: 100)
    }

    /// Mappings run out, so that they become dearer than pages.
    @Test func sharingIsGivenUpForFewerMappings() throws {
        var setup = ModelRun.Setup()
        setup.mappingLimit = 12
        try Self.search(setup, "model, arranged at a price", runs: Self.runs, length: 100)
    }

    @Test func everythingIsArrangedAllTheTime() throws {
        var setup = ModelRun.Setup()
        setup.policy = {
            $0.arrangesAll = true
            $0.arrangementInterval = 1
            $0.arrangementCalm = .max
        }
        try Self.search(setup, "model, arranged all the time", runs: Self.runs, length: 100)
    }

    @Test func constantHash() throws {
        var setup = ModelRun.Setup()
        setup.options.constantHash = true
        try Self.search(setup, "model, constant hash", runs: Self.runs, length: 100)
    }

    @Test func dirtyBitsLag() throws {
        var setup = ModelRun.Setup()
        setup.options.reportsLag = true
        try Self.search(setup, "model, late reports", runs: Self.runs, length: 100)
    }

    /// The audit finds what no report tells.
    @Test func reportsGetLost() throws {
        var setup = ModelRun.Setup()
        setup.options.reportsGetLost = true
        try Self.search(setup, "model, lost reports", runs: Self.runs, length: 100)
    }

    @Test func readsAreReported() throws {
        var setup = ModelRun.Setup()
        setup.options.readsAreReported = true
        try Self.search(setup, "model, reads reported", runs: Self.runs / 2, length: 100)
    }

    @Test func hostThatCannotKeepPages() throws {
        var setup = ModelRun.Setup()
        setup.options.cannotKeep = true
        try Self.search(setup, "model, no kept pages", runs: Self.runs / 2, length: 100)
    }

    @Test func punchesThatFail() throws {
        var setup = ModelRun.Setup()
        setup.options.punchesFail = true
        try Self.search(setup, "model, failing punches", runs: Self.runs / 2, length: 100)
    }

    @Test func fewMappings() throws {
        var setup = ModelRun.Setup()
        setup.mappingLimit = 6
        try Self.search(setup, "model, few mappings", runs: Self.runs / 2, length: 100)
    }

    /// Several blocks, few of whose faults are paid for: whatever was left alone meanwhile is shared in the end.
    @Test func fewFaults() throws {
        var setup = ModelRun.Setup()
        setup.guests = 2
        setup.pages = 150
        setup.time = 1_000_000_000
        setup.policy = { $0.faultsPerSecond = 50 }
        try Self.search(setup, "model, few faults", runs: Self.runs / 4, length: 100)
    }
}
