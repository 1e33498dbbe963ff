@testable import SharingTestKit
import FrameStore
import GuestMemory
import TestSupport
import Testing

@testable import Sharing

/// Why pages are shared or not: each reason with a page that has it, and exact sums whatever happens.
@Suite struct ExplainTests {
    private func makeRun(_ change: (inout ModelRun.Setup) -> Void = { _ in }) throws -> ModelRun {
        try ModelRun.ofTwo {
            $0.policy = { $0.arrangementGain = 0 }
            change(&$0)
        }
    }
    private func engine(_ run: ModelRun, _ guest: Int = 0) throws -> SharingEngine {
        try #require(run.member(guest)).engine
    }

    @Test func eachPageHasItsReason() throws {
        let run = try makeRun()
        for guest in 0...1 {
            try run.fill(guest, 0..<4, second: 100)
            try run.perform(.fill(guest, page: 4, count: 4, first: 9, second: 9))
            try run.perform(.fill(guest, page: 8, count: 2, first: 0, second: 0))
        }
        try run.fill(0, 10..<12, base: 500, second: 500)
        try run.passes(4)
        let engine = try engine(run)
        #expect(
            Array(engine.explain()[0..<12]) == Array(repeating: .shared, count: 8) + [
                .zero, .zero, .unique, .unique,
            ])
        #expect(engine.explain()[14] == .hole && engine.explain().count == 24)
        // Written, and reported by the next harvest: watched from then on.
        try run.fill(0, 12..<13, base: 700, second: 700)
        #expect(engine.explain()[12] == .hole, "nobody has looked yet")
        try run.passes(1)
        #expect(engine.explain()[12] == .unseen)
        // Written each time it is watched.
        var seen: Set<PageSharingReason> = []
        for value in 0..<8 {
            try run.fill(0, 12..<13, base: UInt64(800 + value), second: UInt64(800 + value))
            try run.passes(1)
            seen.insert(engine.explain()[12])
        }
        #expect(seen == [.unseen, .volatile])
        try run.perform(.transfer(0, page: 2, value: 3))
        #expect(engine.explain()[2] == .device && engine.explain(page: 2)?.reason == .device)
        try run.perform(.transferEnds(0))
        try run.perform(.exit(1))
        try run.passes(1)
        #expect(engine.explain()[0] == .singleMapper)
        try run.perform(.brokerDies(0))
        #expect(engine.explain()[0] == .storeLost && engine.explain()[8] == .zero)
        #expect(run.world.violations.isEmpty)
    }

    @Test func whoElseMapsAFrameIsNamed() throws {
        let run = try makeRun()
        for guest in 0...1 { try run.fill(guest, 0..<4, second: 100) }
        try run.perform(.fill(1, page: 9, count: 1, first: 102, second: 100))
        try run.passes(5)
        let other = try #require(run.member(1)?.stores.last).name.value
        let answer = try #require(try engine(run).explain(page: 2))
        #expect(answer.reason == .shared && answer.mappers == 3)
        #expect(
            Set(answer.others.map(\.page)) == [2, 9] && answer.others.allSatisfy { $0.client == other })
        if case .frame = answer.backing {} else { Issue.record("\(answer.backing)") }
        #expect(try engine(run).explain(page: 20)?.reason == .hole)
        #expect(try engine(run).explain(page: 24) == nil && engine(run).explain(page: -1) == nil)
    }

    @Test func whatTheStoreRefusedIsPutOff() throws {
        let run = try makeRun()
        for guest in 0...1 { try run.fill(guest, 0..<1, second: 100) }
        run.world.domains[0].backing.failingWrites = 1
        try run.passes(3)
        let reasons = try (0...1).map { try engine(run, $0).explain()[0] }
        #expect(reasons.contains(.putOff), "\(reasons)")
    }

    /// Whatever happens: as many as the engine counts, and asking changes nothing.
    @Test func sumsAreExact() throws {
        var setup = ModelRun.Setup()
        setup.guests = 3
        for seed in 1...15 as ClosedRange<UInt64> {
            let run = try ModelRun(setup)
            for (step, operation) in ModelTests.operations(setup, seed: seed, count: 80).enumerated() {
                try run.perform(operation)
                if step % 10 != 9 { continue }
                for guest in 0..<3 {
                    if let member = run.member(guest) { check(member, "seed \(seed), step \(step)") }
                }
            }
            #expect(run.world.violations.isEmpty, "seed \(seed)")
        }
    }

    private func check(_ member: Member, _ what: String) {
        if member.isPassing || member.engine.fatal != nil { return }
        let pages = member.engine.pages
        let kinds = (0..<pages.count).map { pages.kind($0) }
        let reasons = member.engine.explain()
        #expect(reasons.count == pages.count, "\(what)")
        for page in 0..<pages.count {
            let reason = reasons[page]
            if member.guest.inFlight.count(page) > 0 {
                #expect(reason == .device, "\(what), page \(page)")
                continue
            }
            #expect((reason == .zero) == (kinds[page] == .zero), "\(what), page \(page)")
            #expect((reason == .hole) == (kinds[page] == .untouched), "\(what), page \(page)")
            let isMapped = [.shared, .singleMapper, .storeLost].contains(reason)
            #expect(isMapped == (kinds[page] == .mapped), "\(what), page \(page): \(reason)")
            #expect(member.engine.explain(page: page)?.reason == reason, "\(what), page \(page)")
        }
        // A store that was lost with the question takes what is known with it, and no page changes.
        #expect((0..<pages.count).map { pages.kind($0) } == kinds, "\(what)")
    }
}
