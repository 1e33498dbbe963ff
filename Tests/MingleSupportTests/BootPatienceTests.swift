import Testing

@testable import MingleSupport

@Suite struct BootPatienceTests {
    /// However slow the host is: what counts is the guest's own time.
    @Test func aSlowGuestIsWaitedFor() {
        var patience = BootPatience(limit: 120, rest: 30)
        for second in 0..<5000 {
            let reason = patience.look("slow", used: Double(second) / 50, now: Double(second))
            #expect(reason == nil)
        }
        #expect(patience.look("slow", used: 120, now: 5000) == "has had 120 s of CPU time")
    }

    @Test func aGuestThatDoesNothingIsNot() {
        var patience = BootPatience(limit: 120, rest: 30)
        for second in 0..<30 {
            #expect(patience.look("hung", used: 3, now: Double(second)) == nil)
            #expect(patience.look("works", used: 3 + Double(second), now: Double(second)) == nil)
        }
        #expect(patience.look("works", used: 33, now: 30) == nil)
        #expect(patience.look("hung", used: 3.01, now: 30) == "has used no CPU time for 30 s")
    }
}
