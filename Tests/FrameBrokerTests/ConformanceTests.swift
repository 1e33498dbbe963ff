import SharingTestKit
@testable import FrameStore
@testable import FrameIndex
@testable import BrokerClient
import Foundation
import GuestMemory
@testable import LinuxHost
import Testing
import TestSupport

@testable import FrameBroker
@testable import Sharing

/// What every frame store does, in the process or behind a socket.
@Suite(.serialized) struct ConformanceTests {
    @Test(arguments: StoreKind.allCases)
    func aPageSeenTwiceBecomesAFrame(_ kind: StoreKind) throws {
        let stand = try StoreStand(kind)
        let (first, second) = (try stand.client(), try stand.client())
        #expect(try first.sight([(3, page(1))], stand.hasher).sightings == [.recorded])
        #expect(try second.sight([(7, page(1))], stand.hasher).sightings == [.publish])
        let reply = try second.publish([(7, page(1))])
        guard case .frame(let location)? = reply.publications.first else {
            Issue.record("\(reply)")
            return
        }
        #expect(stand.frame(location) == page(1))
        #expect(location.value % FrameLocation.segmentSpan == 3, "the first sighter's place")
        let news = try first.exchange(StoreBatch())
        #expect(news.promotions == [.init(page: 3, location: location)])
        #expect(try first.exchange(StoreBatch()).promotions.isEmpty)
        #expect(try first.sight([(5, page(1))], stand.hasher).sightings == [.frame(location)])
        let numbers = try stand.statistics()
        #expect(numbers.frames == 1 && numbers.references == 3 && numbers.sightings == 0)
    }

    @Test(arguments: StoreKind.allCases)
    func aFrameGoesWithItsLastReferenceAndNotBefore(_ kind: StoreKind) throws {
        let stand = try StoreStand(kind)
        let (first, second) = (try stand.client(), try stand.client())
        _ = try first.sight([(0, page(2))], stand.hasher)
        guard case .frame(let location)? = try second.publish([(0, page(2))]).publications.first else {
            Issue.record("no frame")
            return
        }
        // Forgotten before it was announced: no news of it.
        #expect(try first.forget([0]).promotions.isEmpty)
        #expect(stand.frame(location) == page(2))
        _ = try second.forget([0, 0])
        #expect(try stand.statistics().references == 0)
        _ = try first.exchange(StoreBatch())
        try stand.speak()
        _ = try second.exchange(StoreBatch())
        try eventually("the memory is freed") {
            try stand.statistics().retired == 0 && stand.frame(location) == [UInt8](repeating: 0, count: 4096)
        }
    }

    @Test(arguments: StoreKind.allCases)
    func publishingWhatNobodySawIsOnlyASighting(_ kind: StoreKind) throws {
        let stand = try StoreStand(kind)
        let (first, second) = (try stand.client(), try stand.client())
        #expect(try first.publish([(1, page(4))]).publications == [.recorded])
        #expect(try second.sight([(1, page(4))], stand.hasher).sightings == [.publish])
        // A staging slot that does not exist.
        var batch = StoreBatch()
        batch.publications = [.init(page: 1, slot: 5000)]
        #expect(try second.exchange(batch).publications == [.refused])
    }

    @Test(arguments: StoreKind.allCases)
    func uniformPagesLieSideBySide(_ kind: StoreKind) throws {
        let stand = try StoreStand(kind)
        let client = try stand.client(pages: 2048)
        var batch = StoreBatch()
        batch.uniform =
            (510..<514).map { .init(page: $0, pattern: 0xCCCC_CCCC_CCCC_CCCC) } + [.init(page: 9, pattern: 0)]
        let answers = try client.exchange(batch).uniform
        var locations: [FrameLocation] = []
        for case .frame(let location) in answers { locations.append(location) }
        #expect(locations.count == 4 && answers.last == .refused)
        #expect(locations[1] == locations[0].advanced(by: 1))
        #expect(locations[0] == locations[2].advanced(by: SlotMap.runLength - 2))
        for location in locations { #expect(stand.frame(location) == [UInt8](repeating: 0xCC, count: 4096)) }
    }

    @Test(arguments: StoreKind.allCases)
    func whoDisconnectsKeepsReferencesUntilItEnds(_ kind: StoreKind) throws {
        let stand = try StoreStand(kind)
        let (first, second) = (try stand.client(), try stand.client())
        _ = try first.sight([(0, page(6))], stand.hasher)
        _ = try second.publish([(0, page(6))])
        (second as? BrokerStore)?.disconnect()
        (second as? InProcessStore)?.disconnect()
        _ = try first.forget([0])
        try stand.speak()
        #expect(try stand.statistics().frames == 1)
        #expect(throws: FrameStoreError.self) { try second.exchange(StoreBatch()) }
        // What a silent client sighted is taken over.
        let third = try stand.client()
        _ = try third.sight([(9, page(7))], stand.hasher)
        (third as? BrokerStore)?.disconnect()
        (third as? InProcessStore)?.disconnect()
        try eventually("the sighting is taken over") {
            try first.sight([(2, page(7))], stand.hasher).sightings == [.recorded]
        }
    }

    @Test(arguments: StoreKind.allCases)
    func aClientThatLeavesTakesItsReferencesAlong(_ kind: StoreKind) throws {
        let stand = try StoreStand(kind)
        let (first, second) = (try stand.client(), try stand.client())
        let pages = (0..<256).map { (UInt32($0), page($0, 8)) }
        _ = try first.sight(pages, stand.hasher)
        let published = try second.publish(pages).publications
        #expect(published.count == 256 && !published.contains(.refused) && !published.contains(.recorded))
        #expect(try stand.statistics().references == 512)
        stand.leave(second)
        try eventually("its references are gone") { try stand.statistics().references == 256 }
        stand.leave(first)
        try eventually("all is freed") {
            try stand.speak()
            return try stand.statistics() == StoreStatistics()
        }
    }

    /// A client that is quiet is told of news, and of frames that wait for it to speak; and of nothing else.
    @Test(arguments: StoreKind.allCases)
    func whoIsQuietIsToldToSpeak(_ kind: StoreKind) throws {
        let stand = try StoreStand(kind)
        let (first, second, third) = (try stand.client(), try stand.client(), try stand.client())
        func settle() throws {
            try eventually("nobody is told anything any more") {
                let told = [first, second, third].filter { $0.hasNotice() }
                for client in told { _ = try client.exchange(StoreBatch()) }
                try stand.speak()
                // As long as a broker waits until it tells who has just spoken.
                usleep(300_000)
                return told.isEmpty
            }
        }
        _ = try first.sight([(3, page(1))], stand.hasher)
        _ = try third.sight([(3, page(2))], stand.hasher)
        usleep(300_000)
        #expect(
            !first.hasNotice() && !second.hasNotice() && !third.hasNotice(), "a sighting is nobody's news")
        _ = try second.publish([(7, page(1))])
        eventually("the sighter is told of the frame") { first.hasNotice() }
        #expect(first.hasNotice(), "until it asks")
        #expect(!third.hasNotice())
        #expect(try first.exchange(StoreBatch()).promotions.map(\.page) == [3])
        try settle()
        // The frame loses its references, and its memory waits for all.
        _ = try first.forget([3])
        _ = try second.forget([7])
        eventually("who holds it back is told") { third.hasNotice() && first.hasNotice() }
        try settle()
        #expect(try stand.statistics().retired == 0)
        // Who shares nothing with it any more, and who only sees what it has, hears nothing.
        _ = try second.sight([(8, page(9))], stand.hasher)
        usleep(300_000)
        #expect(!first.hasNotice() && !third.hasNotice())
    }

    /// Frames are freed in turn: who holds a later one back is told once the earlier one is gone.
    @Test(arguments: StoreKind.allCases)
    func whoHoldsBackALaterFrameIsToldInTurn(_ kind: StoreKind) throws {
        let stand = try StoreStand(kind)
        let clients = try (0..<4).map { _ in try stand.client() }
        for (page, content) in [(UInt32(1), page(1)), (2, page(2))] {
            _ = try clients[0].sight([(page, content)], stand.hasher)
            _ = try clients[1].publish([(page, content)])
        }
        for client in clients { _ = try client.exchange(StoreBatch()) }
        _ = try clients[0].forget([1])
        _ = try clients[1].forget([1])
        // Nobody but the third waits for the first frame from here on, and the fourth for the second only.
        _ = try clients[3].exchange(StoreBatch())
        _ = try clients[0].forget([2])
        _ = try clients[1].forget([2])
        for client in clients.prefix(2) { _ = try client.exchange(StoreBatch()) }
        try stand.speak()
        #expect(try stand.statistics().retired == 2)
        eventually("who holds the first back is told") { clients[2].hasNotice() }
        _ = try clients[2].exchange(StoreBatch())
        eventually("then who holds the second back is told") { clients[3].hasNotice() }
        try eventually("all is freed") {
            for client in clients where client.hasNotice() { _ = try client.exchange(StoreBatch()) }
            return try stand.statistics().retired == 0
        }
    }

    /// A frame that is left with one mapper is found by looks that its client is told to ask for.
    @Test(arguments: StoreKind.allCases)
    func whoIsLeftAloneWithAFrameIsTold(_ kind: StoreKind) throws {
        let stand = try StoreStand(kind)
        let (first, second) = (try stand.client(), try stand.client())
        _ = try first.sight([(3, page(1))], stand.hasher)
        _ = try second.publish([(7, page(1))])
        try eventually("the first is calm") {
            if first.hasNotice() { _ = try first.exchange(StoreBatch()) }
            usleep(300_000)
            return !first.hasNotice()
        }
        #expect(try first.exchange(StoreBatch()).singleMappers == [])
        _ = try second.forget([7])
        eventually("it is told") { first.hasNotice() }
        // As often as it is so: the client decides when to act on it.
        for _ in 0..<3 { #expect(try first.exchange(StoreBatch()).singleMappers == [3]) }
        #expect(try first.exchange(.forPromotionsOnly).singleMappers == [])
        _ = try first.forget([3])
        _ = try first.exchange(StoreBatch())
        #expect(try first.exchange(StoreBatch()).singleMappers == [])
    }

    @Test(arguments: StoreKind.allCases)
    func aLostStoreIsNoticed(_ kind: StoreKind) throws {
        let stand = try StoreStand(kind)
        let client = try stand.client()
        #expect(!client.hasNotice())
        if let broker = stand.stand {
            kill(try broker.worker(), SIGKILL)
        } else {
            (client as? InProcessStore)?.disconnect()
        }
        eventually("it is noticed") { client.hasNotice() }
        #expect(client.hasNotice())
        #expect(throws: FrameStoreError.self) { try client.exchange(StoreBatch()) }
    }

    @Test(arguments: StoreKind.allCases)
    func aBatchAgainstTheRulesLosesTheStore(_ kind: StoreKind) throws {
        let stand = try StoreStand(kind)
        let client = try stand.client(pages: 16)
        #expect(throws: FrameStoreError.self) { try client.forget([16]) }
        #expect(throws: FrameStoreError.self) { try client.exchange(StoreBatch()) }
    }

    @Test func lossAndDelayAreInjected() throws {
        let domain = try InProcessDomain {
            FrameStoreCore(backing: InMemoryBacking()) { _ in ContentHash(low: 1, high: 1) }
        }
        let client = try #require(try InProcessStore(domain, pageCount: 4))
        client.fate = { $0 == 0 ? .late(20_000_000) : .lostAfter }
        let start = monotonicNanoseconds()
        _ = try client.exchange(StoreBatch())
        #expect(monotonicNanoseconds() - start >= 20_000_000)
        var batch = StoreBatch()
        batch.sightings = [.init(page: 0, hash: ContentHash(low: 1, high: 1))]
        #expect(throws: FrameStoreError.self) { try client.exchange(batch) }
        #expect(domain.statistics.sightings == 1, "it was carried out")
        client.end()
        #expect(domain.statistics == StoreStatistics())
    }
}
