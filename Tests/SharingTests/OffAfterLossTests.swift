import Testing

@testable import Sharing
import FrameStore
import FrameIndex

/// A connection is lost while the process lives, so that its references stay counted; then sharing is turned off.
@Suite struct OffAfterLossTests {
    @Test(arguments: [true, false]) func referencesOfTheEarlierConnectionAreGivenBack(reconnects: Bool) throws
    {
        var setup = ModelRun.Setup()
        setup.guests = 2
        let run = try ModelRun(setup)
        func passes(_ guest: Int, _ count: Int) throws {
            for _ in 0..<count { try run.perform(.pass(guest, budget: .max / 2, meanwhile: [])) }
        }
        for guest in 0...1 {
            for page in 0..<6 {
                try run.perform(.fill(guest, page: page, count: 1, first: 100 + UInt64(page), second: 5))
            }
        }
        for _ in 0..<4 { for guest in 0...1 { try passes(guest, 1) } }
        let member = try #require(run.member(0))
        #expect(member.mappedFrames.count == 6)
        try run.perform(.loseStore(0, after: false))
        member.engine.sendKeepalive()
        #expect(!member.engine.statistics.hasStore)
        if reconnects { try passes(0, 3) }
        try run.perform(.exit(1))
        try run.perform(.setSharing(0, false))
        try passes(0, 30)
        #expect((0..<6).allSatisfy { member.guest.backing[$0] == .home })
        #expect(!member.engine.mustReconnect && member.stores.allSatisfy { $0.leases == 0 })
        #expect(run.world.domains[0].core.statistics.frames == 0)
        #expect(run.world.violations.isEmpty)
    }
}
