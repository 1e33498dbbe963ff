@testable import SharingTestKit
import Testing

@testable import Sharing
import FrameStore
import FrameIndex

/// A connection is lost while the process lives, so that its references stay counted; then sharing is turned off.
@Suite struct OffAfterLossTests {
    @Test(arguments: [true, false]) func referencesOfTheEarlierConnectionAreGivenBack(reconnects: Bool) throws
    {
        let run = try ModelRun.ofTwo()
        for guest in 0...1 { try run.fill(guest, 0..<6) }
        try run.passes()
        let member = try #require(run.member(0))
        #expect(member.mappedFrames.count == 6)
        try run.perform(.loseStore(0, after: false))
        member.engine.sendKeepalive()
        #expect(!member.engine.statistics.hasStore)
        if reconnects { try run.pass(0, times: 3) }
        try run.perform(.exit(1))
        try run.perform(.setSharing(0, false))
        try run.pass(0, times: 30)
        #expect((0..<6).allSatisfy { member.guest.backing[$0] == .home })
        #expect(!member.engine.mustReconnect && member.stores.allSatisfy { $0.leases == 0 })
        #expect(run.world.domains[0].core.statistics.frames == 0)
        #expect(run.world.violations.isEmpty)
    }
}
