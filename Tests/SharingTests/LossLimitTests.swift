@testable import SharingTestKit
import GuestMemory
import Testing

@testable import Sharing

/// What the engine counts of what it does to a guest, and that it stops when that is as much as it may be.
@Suite struct LossLimitTests {
    private static let pages = 1024

    private func run() throws -> ModelRun {
        try ModelRun.ofTwo { $0.pages = Self.pages }
    }

    @Test func aPassStopsWhenTheGuestHasLostWhatItMay() throws {
        let run = try run()
        for guest in 0...1 {
            for page in 0..<Self.pages {
                try run.perform(
                    .fill(guest, page: page, count: 1, first: UInt64(page) + 1, second: UInt64(guest)))
            }
        }
        let limited = try #require(run.member(0)).engine
        let free = try #require(run.member(1)).engine
        limited.conditions.lossScale = LossScale(DisturbancePrices(fault: 1, call: 1), nil)
        limited.conditions.lossLimit = 0
        // The first clears what was written, the second looks.
        for _ in 0..<2 { for guest in 0...1 { try run.pass(guest) } }
        #expect(free.statistics.pagesHashed == Self.pages)
        #expect((1..<Self.pages / 2).contains(limited.statistics.pagesHashed))
        // Nothing is forgotten.
        limited.conditions.lossLimit = .infinity
        for _ in 0..<2 { try run.pass(0) }
        #expect(limited.statistics.pagesHashed == Self.pages)
    }

    @Test func whatIsDoneToAGuestIsCounted() throws {
        let run = try run()
        for guest in 0...1 {
            for page in 0..<8 {
                try run.perform(.fill(guest, page: page, count: 1, first: UInt64(page) + 1, second: 9))
            }
        }
        for _ in 0..<4 { for guest in 0...1 { try run.pass(guest) } }
        let member = try #require(run.member(0))
        #expect(member.mappedFrames == Array(0..<8))
        let engine = member.engine
        // The clear, and a window: protected, and mapped anew.
        #expect(engine.conditions.disturbances.calls >= 3)
        #expect(engine.conditions.disturbances.faults == 0)
        try run.perform(.fill(0, page: 3, count: 1, first: 77, second: 9))
        try run.pass(0)
        // One write is one fault, though the page was merged besides being watched.
        #expect(engine.conditions.disturbances.faults == 1)
    }
}
