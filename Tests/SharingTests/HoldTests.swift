@testable import SharingTestKit
import GuestMemory
import Testing

@testable import Sharing

/// What the engine does and leaves while merges are held.
@Suite struct HoldTests {
    private let run: ModelRun

    init() throws {
        run = try ModelRun.ofTwo()
    }

    private func hold(_ isHeld: Bool) throws {
        for guest in 0...1 { try run.perform(.setHold(guest, isHeld)) }
    }

    @Test func nothingIsMergedUntilItIsLetGo() throws {
        for guest in 0...1 {
            try run.fill(guest, 0..<4)
            try run.perform(.fill(guest, page: 8, count: 4, first: 0, second: 0))
        }
        try hold(true)
        try run.passes(6)
        for guest in 0...1 {
            let member = try #require(run.member(guest))
            #expect(member.guest.countBackings() == 1)
            #expect(member.engine.statistics.pagesMerged == 0 && member.engine.statistics.pagesZero == 0)
        }
        try hold(false)
        try run.passes()
        for guest in 0...1 {
            let member = try #require(run.member(guest))
            #expect(member.mappedFrames == Array(0..<4))
            // Pages beside them that were never touched may have become zeros, too, for fewer mappings.
            #expect((8..<12).allSatisfy { member.engine.pages.kind($0) == .zero })
        }
        #expect(try run.run([]) == nil)
    }

    @Test func promotionsAreGivenBack() throws {
        // Guest 0 sights, guest 1 publishes: guest 0 hears of frames that it does not take now.
        for guest in 0...1 { try run.fill(guest, 0..<4) }
        try run.pass(0, times: 3)
        try run.perform(.setHold(0, true))
        try run.pass(1, times: 3)
        try run.pass(0, times: 3)
        let held = try #require(run.member(0))
        #expect(held.mappedFrames == [])
        #expect(held.stores.last?.leases == 0)
        #expect(try #require(run.member(1)).mappedFrames == Array(0..<4))
        try run.perform(.setHold(0, false))
        try run.pass(0, times: 3)
        #expect(held.mappedFrames == Array(0..<4))
        #expect(try run.run([]) == nil)
    }

    @Test func writesAreAccountedForMeanwhile() throws {
        for guest in 0...1 { try run.fill(guest, 0..<6) }
        try run.passes()
        let member = try #require(run.member(0))
        #expect(member.mappedFrames.count == 6)
        try hold(true)
        try run.fill(0, 1..<3, base: 900)
        try run.pass(0, times: 4)
        #expect(member.mappedFrames == [0, 3, 4, 5])
        #expect(member.stores.last?.leases == 4)
        #expect(member.engine.statistics.pagesUnsharedTotal == 2)
        #expect(try run.run([]) == nil)
    }

    /// Pages that map a lost store stay where they are: taking them home would take memory.
    @Test func orphansStayMeanwhile() throws {
        for guest in 0...1 { try run.fill(guest, 0..<3) }
        try run.passes()
        let guest = try #require(run.member(0)).guest
        #expect(guest.backing[0] != .home)
        try hold(true)
        try run.perform(.exit(1))
        try run.perform(.brokerDies(0))
        try run.pass(0, times: 60)
        for page in 0..<3 { #expect(guest.backing[page] != .home) }
        try run.perform(.setHold(0, false))
        try run.pass(0, times: 60)
        for page in 0..<3 { #expect(guest.backing[page] == .home) }
        #expect(try run.run([]) == nil)
    }
}
