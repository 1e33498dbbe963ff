import SharingTestKit
@testable import FrameStore
@testable import FrameIndex
import Testing

extension FrameStoreCore {
    /// The frame that a client's page maps.
    func frame(of page: ClientPage, _ name: StoreClient) -> FrameNumber? {
        clients[name].flatMap { map.frame(of: .init($0.map, page)) }
    }
    /// Some place of a page number.
    func takePlace(_ page: ClientPage) throws -> FrameLocation {
        let place = slots.take(page: page)
        return try #require(place)
    }
}

/// Frames that get other places while they are mapped.
@Suite struct RelocationTests {
    private func core(_ backing: InMemoryBacking = InMemoryBacking()) -> FrameStoreCore {
        FrameStoreCore(backing: backing, indexKey: 5) { ContentHash(low: UInt64($0[0]), high: UInt64($0[1])) }
    }

    @Test func framesGetBetterPlaces() throws {
        let backing = InMemoryBacking()
        let core = core(backing)
        let names = (1...3).map { StoreClient($0) }
        for name in names { #expect(core.join(name, pageCount: 8)) }
        func content(_ number: UInt8) -> [UInt8] { [number] + [UInt8](repeating: 1, count: 4095) }
        func publish(_ name: StoreClient, _ page: UInt32, _ number: UInt8) -> StoreAnswer? {
            var batch = StoreBatch()
            batch.publications = [.init(page: page, slot: 0)]
            return core.exchange(name, batch) { _ in content(number) }?.publications.first
        }
        func speak() { for name in names { _ = core.exchange(name, StoreBatch()) { _ in nil } } }
        // Two neighbours, shared by all; then two of the guests write the second.
        for name in names { for page: UInt32 in 0...1 { _ = publish(name, page, UInt8(10 + page)) } }
        _ = publish(names[0], 1, 20)
        guard case .frame(let first)? = publish(names[1], 0, 10),
            case .frame(let aside)? = publish(names[1], 1, 20)
        else {
            Issue.record("nothing was shared")
            return
        }
        #expect(aside.segment > first.segment && aside.value % FrameLocation.segmentSpan == 1)
        // As long as the third guest holds the place, nothing is better.
        #expect(core.exchange(names[0], StoreBatch()) { _ in nil }?.moved == [])
        var batch = StoreBatch()
        batch.forgotten = [1]
        _ = core.exchange(names[2], batch) { _ in nil }
        // Who would not move is not asked to, and the frame stays where others find it.
        let unmoved = core.exchange(names[0], .forPromotionsOnly) { _ in nil }
        #expect(unmoved?.moved == [] && unmoved?.singleMappers == [])
        #expect(publish(names[2], 5, 20) == .frame(aside))
        batch.forgotten = [5]
        _ = core.exchange(names[2], batch) { _ in nil }
        speak()
        speak()
        let better = first.advanced(by: 1)
        let moved = [Relocation(page: 1, location: better)]
        #expect(core.exchange(names[0], StoreBatch()) { _ in nil }?.moved == moved)
        // The other is told as well, though its neighbour was not looked at again; and again, until it has moved.
        for _ in 0..<2 { #expect(core.exchange(names[1], StoreBatch()) { _ in nil }?.moved == moved) }
        #expect(publish(names[2], 5, 20) == .frame(better), "who comes now is told the new place")
        batch = StoreBatch()
        batch.relocated = moved
        _ = core.exchange(names[0], batch) { _ in nil }
        for name in [names[0], names[2]] {
            #expect(core.exchange(name, StoreBatch()) { _ in nil }?.moved == [])
        }
        speak()
        #expect(backing.frames[aside] != nil, "one still maps it")
        _ = core.exchange(names[1], batch) { _ in nil }
        speak()
        speak()
        #expect(backing.frames.keys.sorted() == [first, better])
        #expect(core.exchange(names[1], StoreBatch()) { _ in nil }?.moved == [])
    }

    /// A frame moves while its sighter has not heard of it; while a client is silent; and one whose mappers all leave.
    @Test func framesThatMoveAreFreedOnce() throws {
        let backing = InMemoryBacking()
        let core = core(backing)
        let names = (1...3).map { StoreClient($0) }
        for name in names { #expect(core.join(name, pageCount: 8)) }
        let content: [UInt8] = [9] + [UInt8](repeating: 1, count: 4095)
        var batch = StoreBatch()
        batch.publications = [.init(page: 3, slot: 0)]
        for name in names { _ = core.exchange(name, batch) { _ in content } }
        let frame = try #require(core.frame(of: 3, names[1]))
        let old = core.map.slot(of: frame)
        let new = try core.takePlace(6)
        #expect(core.swapSlot(of: frame, to: new))
        let other = try core.takePlace(7)
        #expect(!core.swapSlot(of: frame, to: other), "it moves once at a time")
        #expect(core.slots.isFree(other))
        // The first is told only now: of the new place.
        let news = try #require(core.exchange(names[0], StoreBatch()) { _ in nil })
        #expect(news.promotions == [.init(page: 3, location: new)])
        #expect(core.map.relocations[frame]?.remaining == 2)
        // The lost one may still map the old place.
        core.silence(names[2])
        batch = StoreBatch()
        batch.relocated = [.init(page: 3, location: new)]
        _ = core.exchange(names[1], batch) { _ in nil }
        for _ in 0..<3 { for name in names[..<2] { _ = core.exchange(name, StoreBatch()) { _ in nil } } }
        #expect(backing.frames[old] == content && backing.frames[new] == content)
        // The others leave, it last: both places are freed, each once.
        batch = StoreBatch()
        batch.forgotten = [3]
        for name in names[..<2] { _ = core.exchange(name, batch) { _ in nil } }
        #expect(core.statistics.frames == 1)
        core.leave(names[2])
        while core.hasWork { core.sweep(limit: 1) }
        for name in names[..<2] { _ = core.exchange(name, StoreBatch()) { _ in nil } }
        while core.hasWork { core.sweep(limit: 1) }
        #expect(backing.frames.isEmpty && core.map.relocations.isEmpty)
        #expect(core.statistics.frames == 0 && core.statistics.retired == 0)
        #expect(core.slots.isFree(old) && core.slots.isFree(new))
    }

    @Test func noMoreFramesMoveThanAreAllowed() throws {
        let core = core()
        let names = (1...2).map { StoreClient($0) }
        for name in names { #expect(core.join(name, pageCount: 1024)) }
        func content(_ number: UInt32) -> [UInt8] {
            [UInt8(number & 0xff), UInt8(number >> 8)] + [UInt8](repeating: 1, count: 4094)
        }
        for first in stride(from: UInt32(0), to: 768, by: 256) {
            var batch = StoreBatch()
            batch.publications = (0..<256).map { .init(page: first + $0, slot: $0) }
            for name in names { _ = core.exchange(name, batch) { content(first + $0) } }
        }
        var moved = 0
        for page in 0..<UInt32(768) {
            let frame = try #require(core.frame(of: page, names[0]))
            let place = try core.takePlace(page)
            if core.swapSlot(of: frame, to: place) { moved += 1 }
        }
        #expect(moved == 512 && core.map.relocations.count == 512)
        // Each is told of all, in parts, and says so.
        for name in names {
            for _ in 0..<40 {
                let reply = try #require(core.exchange(name, StoreBatch()) { _ in nil })
                var batch = StoreBatch()
                batch.relocated = reply.moved
                #expect(batch.count <= FrameStoreCore.singleMapperLimit)
                if !batch.isEmpty { _ = core.exchange(name, batch) { _ in nil } }
            }
        }
        #expect(core.map.relocations.isEmpty)
        for _ in 0..<4 {
            for name in names { _ = core.exchange(name, StoreBatch()) { _ in nil } }
            while core.hasWork { core.sweep(limit: 64) }
        }
        for name in names { #expect(!core.wantsToHear(name)) }
    }
}
