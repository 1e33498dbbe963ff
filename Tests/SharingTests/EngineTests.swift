@testable import SharingTestKit
@testable import FrameIndex
import GuestMemory
import Testing

@testable import Sharing
import FrameStore

/// Single behaviours of the engine; each was once wrong, or is promised by the design.
@Suite struct EngineTests {
    @Test func equalRunsBecomeOneMapping() throws {
        let run = try ModelRun.ofTwo()
        for guest in 0...1 { try run.fill(guest, 0..<8) }
        try run.passes()
        for guest in 0...1 {
            let member = try #require(run.member(guest))
            #expect(member.mappedFrames == Array(0..<8))
            #expect(member.guest.countBackings() == 2)
        }
        #expect(run.world.domains[0].core.statistics.frames == 8)
        #expect(run.world.violations.isEmpty)
    }

    @Test func oneOwnPageBetweenEqualOnesNeedsNoMappingOfItsOwn() throws {
        let run = try ModelRun.ofTwo()
        for guest in 0...1 {
            try run.fill(guest, 0..<7)
            try run.perform(.fill(guest, page: 3, count: 1, first: UInt64(guest) + 50, second: 1))
        }
        try run.passes()
        let guest = try #require(run.member(0)).guest
        #expect(try #require(run.member(0)).mappedFrames == [0, 1, 2, 4, 5, 6])
        #expect(guest.countBackings() == 2)
        #expect(guest.copies[3] != nil && guest.home[3] == nil)
    }

    /// To draw the mapping of its neighbours across it would take its sharing from it.
    @Test func aSharedPageBetweenEqualOnesKeepsItsFrame() throws {
        let run = try ModelRun.ofTwo { $0.policy = { $0.arrangementGain = 0 } }
        // Its frame has the place of another page number, so it continues no neighbour's.
        try run.perform(.fill(1, page: 15, count: 1, first: 70, second: 71))
        try run.perform(.fill(0, page: 1, count: 1, first: 70, second: 71))
        for guest in [1, 1, 0, 0, 1] { try run.pass(guest) }
        let member = try #require(run.member(0))
        #expect(member.mappedFrames == [1])
        for guest in 0...1 { for page in [0, 2] { try run.fill(guest, page..<page + 1) } }
        let unshared = member.engine.statistics.pagesMerged
        try run.passes()
        #expect(member.mappedFrames == [0, 1, 2])
        #expect(member.engine.statistics.pagesMerged == unshared + 2, "page 1 was mapped once")
    }

    /// A page that the store is to forget is sighted again before it was told: sent after that, the word would give back the new
    /// reference, and the frame that the page maps could be freed.
    @Test func aSightingReplacesARemoval() throws {
        let run = try ModelRun.ofTwo()
        for guest in 0...1 { try run.fill(guest, 0..<4) }
        let member = try #require(run.member(1))
        var inserted = 0
        member.guest.hook = { name in
            guard name == "look" else { return }
            inserted += 1
            member.engine.pages.removals.insert(2)
        }
        for _ in 0..<6 {
            try run.pass(0)
            try member.pass(run.world)
        }
        member.guest.hook = { _ in }
        #expect(inserted > 0)
        #expect(member.mappedFrames == Array(0..<4))
        #expect(member.stores.last?.leases == 4)
        #expect(run.world.violations.isEmpty)
    }

    @Test func zerosBetweenEqualPagesStayZeroMappings() throws {
        let run = try ModelRun.ofTwo()
        for guest in 0...1 {
            try run.fill(guest, 0..<5)
            try run.perform(.fill(guest, page: 2, count: 1, first: 0, second: 0))
        }
        try run.passes()
        #expect(try #require(run.member(0)).guest.backing[2] == .zero)
    }

    @Test func uniformRunsAreOneMapping() throws {
        let run = try ModelRun.ofTwo()
        for guest in 0...1 { try run.perform(.fill(guest, page: 4, count: 6, first: 9, second: 9)) }
        try run.passes()
        for guest in 0...1 {
            let member = try #require(run.member(guest))
            #expect(member.mappedFrames == Array(4..<10))
            #expect(member.guest.countBackings() == 3)
        }
        #expect(run.world.domains[0].core.statistics.frames == 6)
    }

    /// Of a guest that is busy, pages are looked at one by one.
    @Test func uniformRunsAreOneMappingHoweverTheyAreSeen() throws {
        let run = try ModelRun.ofTwo()
        let members = try (0...1).map { try #require(run.member($0)) }
        for guest in 0...1 { try run.perform(.fill(guest, page: 4, count: 6, first: 9, second: 9)) }
        try run.passes(1)
        for member in members { for page in 4..<10 { member.engine.tracker.unwatch(page) } }
        for page in [7, 4, 9, 5, 8, 6] {
            members.forEach { $0.engine.tracker.watch(page) }
            try run.passes(1)
        }
        for member in members {
            #expect(member.mappedFrames == Array(4..<10))
            #expect(member.guest.countBackings() == 3)
        }
        // What only looks like one is content like any other, and holes stay holes.
        try run.perform(.fill(0, page: 12, count: 2, first: 9, second: 9))
        try run.passes()
        #expect(members[0].guest.home[14] == nil && members[0].guest.countBackings() <= 6)
        #expect(try run.run([]) == nil)
    }

    /// More patterns than get copies of their own are content like any other.
    @Test func tooManyPatternsAreSharedAllTheSame() throws {
        let run = try ModelRun.ofTwo { $0.pages = 3 * (FrameStoreCore.patternLimit + 4) }
        let pages = 3 * (FrameStoreCore.patternLimit + 4)
        for guest in 0...1 {
            for page in stride(from: 0, to: pages, by: 3) {
                let value = UInt64(page + 1)
                try run.perform(.fill(guest, page: page, count: 3, first: value, second: value))
            }
        }
        try run.passes()
        #expect(run.member(0)?.mappedFrames == Array(0..<pages))
        #expect(run.world.violations.isEmpty)
    }

    /// Once the store was asked about pages that had references: it took them back under the mapping.
    @Test func offAndOnAgainHalfWayKeepsReferences() throws {
        let run = try ModelRun.ofTwo()
        for guest in 0...1 { try run.fill(guest, 0..<20) }
        try run.passes()
        try run.perform(.setSharing(0, false))
        try run.pass(0)
        let left = try #require(run.member(0)).mappedFrames.count
        #expect(left > 0 && left < 20)
        try run.perform(.setSharing(0, true))
        try run.perform(.exit(1))
        try run.pass(0, times: 6)
        #expect(try run.run([]) == nil)
    }

    @Test func aTransferUnderWayKeepsItsPageFromGoingHome() throws {
        let run = try ModelRun.ofTwo()
        for guest in 0...1 { try run.fill(guest, 0..<4) }
        try run.passes()
        try run.perform(.transfer(0, page: 1, value: 77))
        try run.perform(.setSharing(0, false))
        try run.pass(0, times: 3)
        try run.perform(.transferEnds(0))
        #expect(run.member(0)?.guest.visible(1) == Content(first: 77, second: 77))
        #expect(try run.run([]) == nil)
    }

    /// A transfer that begins after the look and before the window pins the page that is about to be replaced.
    @Test(arguments: [UInt64(0), 5]) func aTransferThatBeginsBeforeTheWindowIsSeenInIt(value: UInt64) throws {
        let run = try ModelRun.ofTwo()
        for guest in 0...1 {
            try run.perform(.fill(guest, page: 4, count: 1, first: value, second: value * 2))
        }
        let guest = try #require(run.member(0)).guest
        for index in 0...1 { try run.pass(index) }
        try run.pass(1)
        guest.hook = { step in if step == "protect" { try? run.perform(.transfer(0, page: 4, value: 77)) } }
        try #require(run.member(0)).pass(run.world)
        guest.hook = { _ in }
        try run.perform(.transferEnds(0))
        #expect(guest.visible(4) == Content(first: 77, second: 77))
        #expect(try run.run([]) == nil)
    }

    /// Hits of a store that is lost before they are mapped would map it for ever.
    @Test func hitsOfALostStoreAreDropped() throws {
        let run = try ModelRun.ofTwo()
        try run.fill(0, 0..<4)
        try run.perform(.fill(1, page: 8, count: 1, first: 1, second: 2))
        // Guest 1 leaves a sighting of page 8 and, with itself, a frame of pages 10 and 11.
        try run.perform(.fill(1, page: 10, count: 2, first: 3, second: 4))
        try run.pass(1, times: 4)
        // Guest 0 hits the frame, and publishes the sighting: the store dies between the two.
        try run.perform(.fill(0, page: 8, count: 1, first: 1, second: 2))
        try run.perform(.fill(0, page: 10, count: 1, first: 3, second: 4))
        let member = try #require(run.member(0))
        var died = false
        member.guest.hook = { step in
            if step == "stage", !died {
                died = true
                run.world.domains[0].die()
            }
        }
        for _ in 0..<2 { try member.pass(run.world) }
        member.guest.hook = { _ in }
        #expect(died)
        #expect(member.engine.statistics.pagesMapped == 0)
        #expect(try run.run([]) == nil)
    }

    @Test func aLostMappingEndsTheGuest() throws {
        let run = try ModelRun.ofTwo()
        for guest in 0...1 { try run.fill(guest, 0..<4) }
        try run.passes(1)
        run.member(0)?.guest.mapFault = .destroyed
        try run.passes(3)
        #expect(run.member(0)?.engine.fatal != nil)
        #expect(run.member(1)?.engine.fatal == nil)
        #expect(run.world.violations.isEmpty)
    }

    @Test(arguments: [2, 5, 9]) func mappingLimitHolds(limit: Int) throws {
        let run = try ModelRun.ofTwo { $0.mappingLimit = limit }
        for page in stride(from: 0, to: 24, by: 2) {
            for guest in 0...1 {
                try run.perform(.fill(guest, page: page, count: 1, first: UInt64(page + 5), second: 1))
                try run.perform(
                    .fill(guest, page: page + 1, count: 1, first: UInt64(page + guest), second: 1000))
            }
        }
        for _ in 0..<10 {
            try run.passes(1)
            for guest in 0...1 { #expect(try #require(run.member(guest)).guest.countBackings() <= limit) }
        }
    }

    /// Lone equal pages among runs of zeros cost two mappings each.
    @Test func whatWasGivenUpForWantOfMappingsIsSharedWhenThereAreSome() throws {
        let run = try ModelRun.ofTwo { $0.pages = 64 }
        let members = try (0...1).map { try #require(run.member($0)) }
        for guest in 0...1 {
            try run.perform(.fill(guest, page: 0, count: 64, first: 0, second: 0))
            for page in stride(from: 4, to: 60, by: 8) { try run.fill(guest, page..<page + 1) }
        }
        func setLimit(_ limit: Int) {
            for member in members {
                var policy = member.engine.policy
                policy.mappingLimit = limit
                member.engine.setPolicy(policy)
            }
        }
        try run.passes()
        #expect(members.allSatisfy { $0.mappedFrames.count == 7 && $0.guest.countBackings() == 15 })
        setLimit(12)
        try run.perform(.fill(0, page: 62, count: 1, first: 77, second: 78))
        try run.perform(.fill(1, page: 62, count: 1, first: 77, second: 78))
        try run.passes(30)
        #expect(members.contains { $0.engine.pages.givenUpCount > 0 })
        #expect(members.allSatisfy { $0.mappedFrames.count < 7 })
        setLimit(1000)
        // A mapping more or less begins a round.
        for guest in 0...1 { try run.fill(guest, 2..<3, base: 300) }
        try run.passes(30)
        #expect(members.allSatisfy { $0.mappedFrames.count >= 8 && $0.engine.pages.givenUpCount == 0 })
        let counts = members.map(\.engine.statistics.arrangements)
        try run.passes(30)
        #expect(members.map(\.engine.statistics.arrangements) == counts, "arranged for ever")
        #expect(run.world.violations.isEmpty)
    }

    /// The last step of each: what the model or the interleavings say when a safety step is left out.
    @Test(arguments: KernelModel.Sabotage.allCases) func sabotageIsNoticed(sabotage: KernelModel.Sabotage)
        throws
    {
        var setup = ModelRun.Setup()
        setup.sabotage = sabotage
        // Equal hashes that mean nothing: only the comparison stands between them.
        setup.options.constantHash = sabotage == .noCompare
        // What was written and not reported yet is seldom moved otherwise.
        if sabotage == .writtenPagesAreDropped { setup.policy = { $0.arrangesAll = true } }
        var found: String?
        for seed in 1...(sabotage == .none ? 20 : 400) where found == nil {
            let operations = ModelTests.operations(setup, seed: UInt64(seed), count: 100)
            found = try ModelRun(setup).run(operations)
        }
        print("sabotage \(sabotage): \(found ?? "nothing noticed")")
        #expect((found == nil) == (sabotage == .none))
    }
}
