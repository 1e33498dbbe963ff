import SharingTestKit
@testable import FrameStore
@testable import FrameIndex
import GuestMemory
@testable import Sharing
import TestSupport
import Testing

@Suite struct CoreModelTests {
    @Test(arguments: [false, true])
    func agreesWithTheModel(constantHash: Bool) throws {
        var relocations = 0
        for round in 0..<4 {
            let run = try CoreModelRun(
                "store model, round \(round), constant hash \(constantHash)", constantHash: constantHash)
            try run.run(steps: 1500)
            relocations += run.relocations
        }
        #expect(relocations > 0)
    }

    private func core(_ backing: InMemoryBacking = InMemoryBacking()) -> FrameStoreCore {
        FrameStoreCore(backing: backing, indexKey: 5) { ContentHash(low: UInt64($0[0]), high: UInt64($0[1])) }
    }
    private func see(_ pages: Range<UInt32>, _ first: UInt64 = 0) -> StoreBatch {
        var batch = StoreBatch()
        batch.sightings = pages.map { .init(page: $0, hash: ContentHash(low: first + UInt64($0), high: 0)) }
        return batch
    }

    /// Values of another implementation of SipHash-1-3.
    @Test func theIndexIsKeyedBySipHash() {
        #expect(SipHash(0, 0).hash(0x0706_0504_0302_0100, 0x0f0e_0d0c_0b0a_0908) == 0x8972_1884_33a5_c5b7)
        #expect(SipHash(0x0706_0504_0302_0100, 0x0f0e_0d0c_0b0a_0908).hash(0, 0) == 0x403e_4b0d_4f19_f787)
        #expect(SipHash(1, 2).hash(3, 1 << 63) == 0xdfef_bfe5_ab1f_43f4)
    }

    @Test func chosenHashesDoNotMakeLongChains() throws {
        func chosen(_ number: UInt64) -> ContentHash { ContentHash(low: 0, high: number << 32) }
        var table = ContentTable(key: UInt64.random(in: 0...UInt64.max))
        for number in 0..<50_000 {
            let entry = table.insert(chosen(UInt64(number)), place: 1)
            try #require(entry != nil)
        }
        let longest = (0..<50_000).map { table.chainLength(of: chosen(UInt64($0))) }.max()
        // Two on average; a longer one than this is less likely than one in 10^20.
        #expect(try #require(longest) < 40)
    }

    @Test func patternsThatComeAndGoUseTheirPlacesAgain() {
        let backing = InMemoryBacking()
        let core = core(backing)
        #expect(core.join(StoreClient(1), pageCount: 4))
        var largest = FrameLocation(0)
        for round in 1...6_000 {
            var batch = StoreBatch()
            batch.uniform = [.init(page: 0, pattern: UInt64(round))]
            guard let reply = core.exchange(StoreClient(1), batch, staging: { _ in nil }),
                case .frame(let location)? = reply.uniform.first
            else {
                Issue.record("refused in round \(round)")
                return
            }
            largest = max(largest, location)
            core.sweep(limit: 16)
        }
        #expect(largest.segment == 1 && largest.value % FrameLocation.segmentSpan < 10_000)
        #expect(backing.frames.count < 10)
    }

    /// A round of looks over a large guest takes several batches; once one found nothing, there is no further until something
    /// happens that could matter.
    @Test func looksEndWhenNothingIsFound() throws {
        let core = core()
        let (first, second) = (StoreClient(1), StoreClient(2))
        for name in [first, second] { #expect(core.join(name, pageCount: 100_000)) }
        func content(_ number: UInt8) -> [UInt8] { [number] + [UInt8](repeating: 2, count: 4095) }
        func publish(_ name: StoreClient, _ page: UInt32, _ number: UInt8) {
            var batch = StoreBatch()
            batch.publications = [.init(page: page, slot: 0)]
            _ = core.exchange(name, batch) { _ in content(number) }
        }
        func looks(_ name: StoreClient) -> Int {
            var count = 0
            while core.wantsToHear(name), count < 100 {
                _ = core.exchange(name, StoreBatch()) { _ in nil }
                count += 1
            }
            return count
        }
        // Pages far apart, shared by both.
        for page in stride(from: UInt32(0), to: 100_000, by: 1000) {
            for name in [first, second] { publish(name, page, UInt8(page / 1000)) }
        }
        #expect(2...10 ~= looks(first) && 2...10 ~= looks(second))
        #expect(!core.wantsToHear(first) && !core.wantsToHear(second))
        // Contents of its own matter to nobody.
        publish(second, 5, 200)
        #expect(looks(first) == 0 && looks(second) == 0)
        // A frame at the far end loses its company.
        var batch = StoreBatch()
        batch.forgotten = [99_000]
        _ = core.exchange(second, batch) { _ in nil }
        var singleMappers: [ClientPage] = []
        for _ in 0..<10 where singleMappers.isEmpty {
            #expect(core.wantsToHear(first))
            singleMappers = core.exchange(first, StoreBatch(), staging: { _ in nil })?.singleMappers ?? []
        }
        #expect(singleMappers == [99_000])
    }

    @Test func segmentsAreUsedAgain() {
        let core = core()
        for round in 1...9_000 {
            let name = StoreClient(UInt32(round))
            #expect(core.join(name, pageCount: 1 << 15))
            core.leave(name)
            while core.hasWork { core.sweep(limit: 100) }
        }
        #expect(core.statistics.clients == 0)
    }

    @Test func promotionsAreBounded() throws {
        let backing = InMemoryBacking()
        let core = core(backing)
        let (first, second) = (StoreClient(1), StoreClient(2))
        #expect(core.join(first, pageCount: 256) && core.join(second, pageCount: 256))
        var announced = 0
        for _ in 0..<20 {
            _ = core.exchange(first, see(0..<256), staging: { _ in nil }).map {
                announced += $0.promotions.count
            }
            var batch = StoreBatch()
            batch.publications = (0..<256).map { .init(page: $0, slot: $0) }
            let reply = core.exchange(second, batch) {
                [UInt8(truncatingIfNeeded: $0)] + [UInt8](repeating: 0, count: 4095)
            }
            #expect(
                try #require(reply).publications.allSatisfy { if case .frame = $0 { true } else { false } })
        }
        // Each was sighted anew before it was told, so only the last are news.
        let last = try #require(core.exchange(first, StoreBatch()) { _ in nil })
        #expect(last.promotions.count == 0 || last.promotions.count == 256)
        #expect(announced + last.promotions.count <= 256 * 20)
        #expect(core.statistics.references <= 512)
    }

    @Test func rulesAreKept() {
        let core = core()
        #expect(!core.join(StoreClient(1), pageCount: 0))
        #expect(!core.join(StoreClient(1), pageCount: 1 << 27))
        #expect(core.join(StoreClient(1), pageCount: 8))
        for page: UInt32 in [8, UInt32.max - 1] {
            #expect(core.exchange(StoreClient(1), see(page..<page + 1)) { _ in nil } == nil)
        }
        var large = StoreBatch()
        large.forgotten = [UInt32](repeating: 0, count: FrameStoreCore.batchLimit + 1)
        #expect(core.exchange(StoreClient(1), large) { _ in nil } == nil)
        var many = StoreBatch()
        many.publications = (0..<257).map { _ in .init(page: 0, slot: 0) }
        #expect(core.exchange(StoreClient(1), many) { _ in nil } == nil)
        #expect(core.exchange(StoreClient(9), StoreBatch()) { _ in nil } == nil)
        var moved = StoreBatch()
        moved.relocated = [.init(page: 8, location: FrameLocation(0))]
        #expect(core.exchange(StoreClient(1), moved) { _ in nil } == nil)
        moved.relocated = [Relocation](
            repeating: .init(page: 0, location: FrameLocation(0)), count: FrameStoreCore.batchLimit + 1)
        #expect(core.exchange(StoreClient(1), moved) { _ in nil } == nil)
    }
}
