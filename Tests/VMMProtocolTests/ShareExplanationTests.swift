import GuestMemory
import Testing

@testable import VMMProtocol

@Suite struct ShareExplanationTests {
    private func received(_ packets: [[UInt8]]) -> ShareExplanation? {
        var left = packets[...]
        return ShareExplanation { left.popFirst() ?? [] }
    }

    @Test func reasonsComeBack() {
        let all = PageSharingReason.allCases
        for (count, hold) in [(0, nil), (1, "booting"), (32_768, nil), (100_001, "cpu")] {
            let reasons = (0..<count).map { all[$0 * 7 % all.count] }
            let sent = ShareExplanation(reasons: reasons, domain: "lab", hold: hold)
            #expect(received(sent.packets) == sent)
            #expect(sent.counts.values.reduce(0, +) == count)
            #expect(sent.packets.allSatisfy { $0.count <= 60_000 })
        }
        let sent = ShareExplanation(reasons: [.hole, .shared], domain: "lab", hold: nil).packets
        #expect(received([Array("error: no".utf8)]) == nil && received([sent[0]]) == nil)
        #expect(received([sent[0], [0, 200]]) == nil && received([sent[0], [0, 0, 0]]) == nil)
    }

    @Test func aPageComesBack() {
        let lists: [[(UInt32, UInt32)]] = [[], [(1, 2)], [(0, 7), (4_000_000_000, 9)]]
        for companions in lists {
            let sent = PageShareExplanation(
                reason: .shared, backing: "frame 2:0x10", mappers: 3,
                companions: companions.map { .init(process: $0.0, page: $0.1) })
            #expect(PageShareExplanation(sent.text) == sent)
        }
        for broken in [
            "", "reason=shared\n", "reason=odd\nbacking=home\nmappers=0\nwith=\n",
            "reason=shared\nbacking=x\nmappers=2\nwith=1:2:3\n",
        ] { #expect(PageShareExplanation(broken) == nil) }
    }
}
