@testable import FrameStore
@testable import BrokerClient
import CLinux
import Foundation
import GuestMemory
@testable import LinuxHost
import Testing
import TestSupport

@testable import FrameBroker
@testable import Sharing

/// Whatever a process takes of places, memory and time, there is some left for the others.
@Suite(.serialized) struct HostileSharesTests {
    private func crowd(_ stand: BrokerStand, _ role: String, _ number: Int) throws -> ChildProcess {
        try ChildProcess(
            program("broker-test-client"), [role, stand.path, String(number)],
            streams: [.nothing, .nothing, .nothing])
    }

    // MARK: places

    @Test func limitsHold() throws {
        let stand = try BrokerStand(["clientsOfProcess=4"])
        let honest = try Honest(stand)
        let others = [try stand.join("a", pages: 4), try stand.join("b", pages: 4)]
        #expect(throws: BrokerError.self) { try stand.join("c", pages: 4) }
        others[0].goodbye()
        eventually("there is room again") { (try? stand.join("c", pages: 4)) != nil }
        // Many connections that say nothing.
        let crowd = (0..<400).compactMap { _ in try? RawClient(stand.path) }
        try honest.check(1)
        #expect(try descriptors(stand.worker()) < 200)
        withExtendedLifetime(crowd) {}
    }

    /// One process: connections that say nothing, and those that ask for figures all the time.
    @Test func strangersGiveWay() throws {
        let stand = try BrokerStand()
        let honest = try Honest(stand)
        let mute = try (0..<64).map { _ in try RawClient(stand.path) }
        #expect(try stand.figures().clients.count == 2)
        let newcomer = try stand.join("honest")
        #expect(newcomer.domain == "honest")
        // They are told why.
        let told = try #require(mute[0].receive())
        #expect(told.first == MessageKind.refusal.rawValue && told[1] == RefusalReason.busy.rawValue)
        #expect(mute[0].receive() == nil)
        let curious = try (0..<64).map { _ in
            let client = try RawClient(stand.path)
            _ = client.send(WireWriter(.observe).bytes)
            return client
        }
        for number in 0..<20 {
            for client in curious { _ = client.send(FiguresPart.request(firstDomain: 0, firstClient: 0)) }
            try stand.join("honest").goodbye()
            try honest.check(number)
        }
        withExtendedLifetime((mute, curious)) {}
    }

    /// More processes than there are places, each with all the connections that it may have.
    @Test func strangersOfManyProcessesGiveWay() throws {
        let stand = try BrokerStand(["strangers=16", "greeting=600000"])
        let honest = try Honest(stand)
        let before = try descriptors(stand.worker())
        let crowds = try (0..<12).map { _ in try crowd(stand, "mute", 8) }
        try eventually("they hold all places") { try descriptors(stand.worker()) >= before + 14 }
        for number in 0..<20 {
            let newcomer = try stand.join("honest")
            // Who is known comes again.
            newcomer.disconnect()
            try stand.join("honest").goodbye()
            #expect(try stand.figures().clients.count >= 2)
            try honest.check(number)
        }
        #expect(try descriptors(stand.worker()) < before + 2 * 16 + 64)
        withExtendedLifetime(crowds) {}
    }

    @Test func aGuestThatComesBackFindsItsPlace() throws {
        let stand = try BrokerStand(["clients=4"])
        let history = SessionHistory()
        let guest = try stand.join("full", pages: 16, history: history)
        // Only of who holds something is anything left when its connection closes: what the others publish, too.
        let hasher = try #require(PageHasher(secret: guest.secret))
        _ = try guest.sight([(0, page(1, 0x5A5A_5A5A_5A5A_5A5A))], hasher)
        var others: [ClientProcess] = []
        for _ in 0..<3 {
            others.append(try ClientProcess(stand, "full", pages: 16))
            #expect(others.last?.line().hasPrefix("ready") == true)
        }
        // All places are taken.
        let late = try ClientProcess(stand, "full", pages: 16)
        #expect(try late.wait() != 0)
        guest.disconnect()
        try eventually("it is silent") { try stand.figures().clients.contains { $0.isSilent } }
        let again = try stand.join("full", pages: 16, history: history)
        var batch = StoreBatch()
        batch.hasMovedOver = true
        _ = try again.exchange(batch)
        try eventually("the earlier connection is gone") { try stand.figures().clients.count == 4 }
        // A second one would be another's place.
        #expect {
            try stand.join("full", pages: 16)
        } throws: {
            guard case .refused(.full, let text)? = $0 as? BrokerError else { return false }
            return text.contains("all 4 places")
        }
        withExtendedLifetime(others) {}
    }

    // MARK: memory

    @Test func aClaimTakesNothingFromOthers() throws {
        let stand = try BrokerStand()
        let honest = try Honest(stand)
        let worker = try stand.worker()
        let before = try memory(worker)
        // 16 TiB, as if it were.
        let evil = try (0..<60).map { _ in try stand.join("honest", pages: 1 << 26) }
        #expect(try stand.join("other", pages: 1 << 26).domain == "other")
        try honest.check(1)
        #expect(try memory(worker) - before < 4 << 10)
        withExtendedLifetime(evil) {}
    }

    /// It claims a GiB, and has next to nothing.
    @Test func aProcessGetsNoMoreFramesThanItCouldHold() throws {
        let stand = try BrokerStand()
        let honest = try Honest(stand)
        let hoard = try ClientProcess(stand, role: "hoard", "262144")
        let words = hoard.line().split(separator: " ")
        let made = try #require(words.last.flatMap { Int($0) })
        let peak = try #require(ProcessPeak.bytes(of: hoard.identifier))
        // Each frame has two pages of it.
        let allowed = MemoryAllowance.pages(peakBytes: peak, .none) / 2
        #expect(words.first == "made" && made > 1000 && made <= allowed, "\(words), \(peak >> 20) MiB")
        let store = try #require(try stand.figures().domains.first { $0.name == "hoard" })
        #expect(store.store.frames == made && store.allocatedBytes <= UInt64(allowed) << 12)
        try honest.check(1)
    }

    @Test func whatAllClientsOfAProcessHaveCountsTogether() throws {
        let stand = try BrokerStand(["pagesOfProcess=1000"])
        let clients = try (0..<5).map { _ in try stand.join(nil, pages: 4096) }
        var batch = StoreBatch()
        batch.sightings = (0..<400).map { .init(page: $0, hash: ContentHash(low: UInt64($0), high: 1)) }
        let recorded = try clients.map { client in
            try client.exchange(batch).sightings.count { $0 == .recorded }
        }
        #expect(recorded.reduce(0, +) <= 1000 && recorded.prefix(2) == [400, 1000 - 505 - 105])
        #expect(recorded.suffix(3) == [0, 0, 0])
        clients[0].goodbye()
        try eventually("there is room again") {
            try clients[4].exchange(batch).sightings.contains(.recorded)
        }
    }

    // MARK: time

    /// Others keep the broker busy with all they have; each exchange has a deadline.
    @Test func aBusyProcessKeepsNobodyFromSharing() throws {
        let stand = try BrokerStand()
        let honest = try Honest(stand)
        let crowds = try (0..<2).map { _ in try crowd(stand, "crowd", 30) }
        try eventually("they are there") { try stand.figures().clients.count > 40 }
        for number in 0..<20 {
            try honest.check(number)
            try stand.join("honest").goodbye()
        }
        withExtendedLifetime(crowds) {}
    }

    // MARK: what is said

    @Test func busyIsToldFromNone() throws {
        let folder = try TemporaryDirectory()
        let path = folder.path("broker.sock")
        func failure() -> BrokerError? {
            do throws(BrokerError) {
                _ = try BrokerStore.statistics(path: path, deadlineMilliseconds: 300)
                return nil
            } catch { return error }
        }
        #expect(failure() == .noBroker(path))
        // Somebody listens, and takes nobody in.
        var listener: PacketSocket? = try PacketSocket.listen(at: path, backlog: 1)
        #expect(failure() == .busy(path))
        // Nor is there room at the door.
        let waiting = (0..<8).compactMap { _ in try? RawClient(path) }
        #expect(waiting.count < 8 && failure() == .busy(path))
        listener = nil
        #expect(failure() == .noBroker(path), "what was left of it")
        withExtendedLifetime((waiting, listener == nil)) {}
    }
}
