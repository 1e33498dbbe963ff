import GuestMemory
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
