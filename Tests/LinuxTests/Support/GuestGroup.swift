import Foundation
import Synchronization
import Testing
import TestSupport

/// Four guests of one domain, which the tests of sharing use one after the other: to boot them takes longer than all that
/// the tests do. Two of them keep writers out by userfaultfd, two by pauses. They share from their start.
///
/// A test leaves them alive and not paused, sharing on or off. After a test that failed nobody knows what they are at: the next one
/// gets new ones.
final class GuestGroup: @unchecked Sendable {
    static let domain = "debian"
    let guests: [ShellGuest]
    private let runtime: TemporaryDirectory

    private static let current = Mutex<GuestGroup?>(nil)

    /// One after the other: several that boot at the same time on one processor take three times as long in all.
    private init() throws {
        let runtime = try TemporaryDirectory()
        self.runtime = runtime
        guests = try ["userfaultfd", "pause", "userfaultfd", "pause"].enumerated().map { index, window in
            try ShellGuest("g\(index + 1)", domain: Self.domain, window: window, runtime: runtime)
        }
    }

    /// Runs a test's body with the guests. Tests of them run one at a time.
    static func use(_ body: (GuestGroup) throws -> Void) throws {
        let taken = current.withLock { $0.take() }
        let group = try taken ?? GuestGroup()
        try body(group)
        current.withLock { $0 = group }
    }

    func turnSharing(on: Bool) throws {
        for guest in guests { try guest.control.ask(on ? "sharing on" : "sharing off") }
    }

    /// Brings every page home, and waits until the store has given all its memory back.
    func bringHome() throws {
        try turnSharing(on: false)
        for guest in guests { try guest.bringHome() }
        try guests[0].wait("the store is empty") { try storeBytes() == 0 }
    }

    private func storeBytes() throws -> Int? {
        let answer = try Mingle.run(["broker", "status", "--json"], runtime: runtime)
        let report = try JSONSerialization.jsonObject(with: Data(answer.output.utf8)) as? [String: Any]
        let domains = report?["domains"] as? [[String: Any]] ?? []
        return domains.first { $0["name"] as? String == Self.domain }?["store_bytes"] as? Int
    }

    /// Presses the guests' power buttons, if there are any: they must end by themselves.
    static func powerOff() throws {
        guard let group = current.withLock({ $0.take() }) else { return }
        for guest in group.guests {
            let result = try guest.powerOff()
            #expect(result.status == 0, "\(guest.name): \(result.output)\n\(result.errors)")
        }
    }
}

/// Powers the guests off behind the last test of the suite.
struct PowersOffGuests: SuiteTrait, TestScoping {
    func provideScope(
        for test: Test, testCase: Test.Case?, performing function: @Sendable () async throws -> Void
    ) async throws {
        try await function()
        try GuestGroup.powerOff()
    }
}
