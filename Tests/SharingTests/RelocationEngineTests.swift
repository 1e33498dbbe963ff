@testable import SharingTestKit
@testable import FrameIndex
@testable import FrameStore
import GuestMemory
import Testing

@testable import Sharing

/// Frames that are given other places while guests map them.
@Suite struct RelocationEngineTests {
    private let count = 6

    /// Two guests with so many pages in common, whose frames were just given other places.
    private func moving(cannotKeep: Bool = false) throws -> ModelRun {
        let run = try ModelRun.ofTwo {
            $0.options.cannotKeep = cannotKeep
            // A page at a time, and those here not soon.
            $0.policy = { $0.auditPasses = 24 }
        }
        for guest in 0...1 { try run.fill(guest, 0..<count, second: 7) }
        try run.passes()
        for guest in 0...1 { #expect(try member(run, guest).mappedFrames == Array(0..<count)) }
        for page in 0..<count { try run.perform(.relocate(0, page: page, aside: false)) }
        #expect(run.world.domains[0].relocations == count)
        return run
    }
    private func member(_ run: ModelRun, _ guest: Int) throws -> Member { try #require(run.member(guest)) }
    /// Segments of the places that a guest's pages map.
    private func segments(_ run: ModelRun, _ guest: Int) throws -> [UInt32?] {
        try member(run, guest).guest.backing[0..<count].map {
            if case .frame(_, let location) = $0 { location.segment } else { nil }
        }
    }
    /// Everybody maps the new places, and the old ones are free.
    private func checkOver(_ run: ModelRun) throws {
        for _ in 0..<2 {
            for member in run.world.members { member.engine.sendKeepalive() }
            run.world.domains[0].settle()
        }
        let core = run.world.domains[0].core
        #expect(core.map.relocations.isEmpty && core.statistics.retired == 0)
        #expect(core.statistics.frames == run.world.domains[0].backing.frames.count)
        #expect(run.world.violations.isEmpty)
    }

    @Test func pagesFollowTheirFrames() throws {
        let run = try moving()
        let before = try (0...1).map { try segments(run, $0)[0] }
        try run.passes()
        for guest in 0...1 {
            let member = try member(run, guest)
            #expect(try segments(run, guest).allSatisfy { $0 != before[0] && $0 != nil })
            #expect(member.mappedFrames == Array(0..<count) && member.guest.countBackings() == 2)
            #expect(member.engine.statistics.pagesRehomed == 0, "they were never home")
        }
        #expect(run.world.domains[0].core.statistics.frames == count)
        try checkOver(run)
    }

    /// One guest follows at once; the other one has its old places as long as it likes.
    @Test func whoDoesNotSpeakKeepsItsPlaces() throws {
        let run = try moving()
        try run.perform(.setHold(1, true))
        for _ in 0..<5 { try run.passes() }
        #expect(run.world.domains[0].core.map.relocations.count == count)
        #expect(try segments(run, 0) != segments(run, 1) && run.world.violations.isEmpty)
        try run.perform(.setHold(1, false))
        try run.passes()
        #expect(try segments(run, 0) == segments(run, 1))
        try checkOver(run)
    }

    /// The write is never reported: only the comparison tells it from a page that could follow. It is kept over its neighbours' new
    /// mapping; or, where that cannot be done, stays over the old one until it is proved to be private.
    @Test(arguments: [false, true]) func aPageThatWasWrittenDoesNotFollow(cannotKeep: Bool) throws {
        let run = try moving(cannotKeep: cannotKeep)
        let guest = try member(run, 0).guest
        guest.losesNextReport = true
        try run.perform(.write(0, page: 2, half: 0, value: 5))
        try run.pass(0)
        #expect(guest.visible(2) == Content(first: 5, second: 7))
        let leases = try #require(member(run, 0).stores.last).leases
        #expect(leases == (cannotKeep ? count : count - 1), "nothing is given back unproved")
        try run.passes(30)
        #expect(try member(run, 0).mappedFrames == [0, 1, 3, 4, 5])
        #expect(try member(run, 0).engine.statistics.mismatches > 0)
        try checkOver(run)
    }

    @Test func aPageUnderATransferFollowsLater() throws {
        let run = try moving()
        try run.perform(.transfer(1, page: 3, value: 9))
        try run.passes(2)
        #expect(try segments(run, 1)[3] != segments(run, 1)[2])
        #expect(run.world.domains[0].core.map.relocations.count == 1)
        try run.perform(.transferEnds(1))
        try run.passes(30)
        try checkOver(run)
    }

    @Test(arguments: [false, true]) func aMappingThatFailsIsNotAcknowledged(isLost: Bool) throws {
        let run = try moving()
        try run.perform(.failMap(0, isLost: isLost))
        try run.pass(0)
        #expect(run.world.violations.isEmpty)
        #expect(run.world.domains[0].core.map.relocations.count == count)
        try run.passes(80)
        #expect(try member(run, 0).mappedFrames == Array(0..<count))
        try checkOver(run)
    }

    /// The store is lost when it is told, before it hears that or after.
    @Test(arguments: [FakeStore.Fate.lostBefore, .lostAfter])
    func theStoreMayBeLostWithTheWord(fate: FakeStore.Fate) throws {
        let run = try moving()
        let member = try member(run, 0)
        var hasMoved = false
        member.guest.hook = { step in
            if step == "release" { hasMoved = true }
            if step == "ask", hasMoved { member.stores.last?.nextFate = fate }
        }
        try member.pass(run.world)
        member.guest.hook = { _ in }
        #expect(hasMoved && member.stores.last?.isLost == true)
        #expect(run.world.domains[0].core.map.relocations.count == count)
        try run.passes(60)
        #expect(member.mappedFrames == Array(0..<count))
        try checkOver(run)
    }
}
