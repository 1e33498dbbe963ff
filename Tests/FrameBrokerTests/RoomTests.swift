@testable import FrameStore
@testable import FrameIndex
import Testing

@testable import Sharing

/// What a client may cost, and what its claims cost: nothing.
@Suite struct RoomTests {
    private func core(_ backing: InMemoryFrames = InMemoryFrames()) -> FrameStoreCore {
        FrameStoreCore(backing: backing, indexKey: 5) { ContentHash(low: UInt64($0[0]), high: UInt64($0[1])) }
    }
    private func see(_ pages: some Sequence<UInt32>) -> StoreBatch {
        var batch = StoreBatch()
        batch.sightings = pages.map { .init(page: $0, hash: ContentHash(low: 1000 + UInt64($0), high: 7)) }
        return batch
    }
    private func content(_ number: UInt8) -> [UInt8] { [number] + [UInt8](repeating: 1, count: 4095) }
    private func publish(_ core: FrameStoreCore, _ name: StoreClient, _ page: UInt32, _ number: UInt8)
        -> StoreAnswer?
    {
        var batch = StoreBatch()
        batch.publications = [.init(page: page, slot: 0)]
        return core.exchange(name, batch) { _ in content(number) }?.publications.first
    }
    private let first = StoreClient(1)
    private let second = StoreClient(2)

    @Test func aClaimCostsNothing() {
        let core = core()
        for number in UInt32(1)...1000 { #expect(core.join(StoreClient(number), pageCount: 1 << 26)) }
        #expect(core.load(of: StoreClient(1)) == 0)
        var words = PageWords(count: 1 << 26)
        #expect(words.firstPossible(from: 0) == 1 << 26 && words[(1 << 26) - 1] == 0)
        words[(1 << 26) - 1] = 5
        #expect(words.chunkCount == 1 && words[(1 << 26) - 1] == 5)
        #expect(words.firstPossible(from: 3) == (1 << 26) - 1024)
        words[1 << 20] = 6
        #expect(
            words.firstPossible(from: 0) == 1 << 20
                && words.firstPossible(from: (1 << 20) + 1024) == (1 << 26) - 1024)
    }

    @Test func aBitmapGivesBackWhatItDoesNotNeed() {
        var bits = PageBitmap()
        for page in [0, 5, 40_000, 1 << 25] { bits.insert(page) }
        #expect(bits.population == 4 && bits.chunkCount == 3)
        bits.insert(5)
        for page in [0, 40_000, 40_000, 7] { bits.remove(page) }
        #expect(bits.population == 2 && bits.chunkCount == 2)
        #expect(bits.contains(5) && !bits.contains(0) && !bits.contains(40_000) && bits.contains(1 << 25))
        bits.insert(40_001)
        #expect(bits.contains(40_001) && !bits.contains(40_000))
        var small = SmallBitmap()
        for number in [0, 63, 64, 191, 255, 255] { small.insert(number) }
        #expect(small.population == 5 && (0..<256).filter(small.contains) == [0, 63, 64, 191, 255])
    }

    @Test func whatGoesBeyondTheRoomIsRefused() throws {
        let core = core()
        #expect(core.join(first, pageCount: 4096) && core.join(second, pageCount: 4096))
        core.setRoom(FrameStoreCore.tableLoad + 10, of: first)
        let answers = try #require(core.exchange(first, see(0..<20)) { _ in nil }).sightings
        #expect(
            answers.prefix(10).allSatisfy { $0 == .recorded }
                && answers.dropFirst(10).allSatisfy { $0 == .refused })
        #expect(core.statistics.sightings == 10 && core.load(of: first) == FrameStoreCore.tableLoad + 10)
        // The same pages again need no more.
        #expect(
            core.exchange(first, see(0..<10)) { _ in nil }?.sightings
                == [StoreAnswer](repeating: .recorded, count: 10))
        var batch = StoreBatch()
        batch.forgotten = [3]
        _ = core.exchange(first, batch) { _ in nil }
        #expect(core.exchange(first, see(11..<13)) { _ in nil }?.sightings == [.recorded, .refused])
        // Pages far apart cost their tables.
        core.setRoom(FrameStoreCore.tableLoad * 2 + 11, of: first)
        #expect(core.exchange(first, see([2000, 3500])) { _ in nil }?.sightings == [.recorded, .refused])
        // References, publications and uniform pages count as well; the other client has no limit.
        _ = core.exchange(second, see(11..<12)) { _ in nil }
        #expect(publish(core, second, 40, 9) == .recorded)
        #expect(publish(core, first, 20, 9) == .refused)
        batch = StoreBatch()
        batch.uniform = [.init(page: 30, pattern: 5)]
        #expect(core.exchange(first, batch) { _ in nil }?.uniform == [.refused])
        #expect(core.statistics.frames == 0)
        core.leave(first)
        while core.hasWork { core.sweep(limit: 100) }
        #expect(core.load(of: first) == 0)
    }

    @Test func framesThatWaitToBeFreedCount() {
        let core = core()
        #expect(
            core.join(first, pageCount: 64) && core.join(second, pageCount: 64)
                && core.join(StoreClient(3), pageCount: 64))
        core.setRoom(FrameStoreCore.tableLoad + 8, of: second)
        for round in UInt8(0)..<20 {
            #expect(publish(core, first, 0, round) == .recorded)
            let answer = publish(core, second, 0, round)
            // The third is silent, so nothing is freed.
            if round < 8 {
                guard case .frame? = answer else {
                    Issue.record("round \(round): \(String(describing: answer))")
                    return
                }
            } else {
                #expect(answer == .refused)
            }
            var batch = StoreBatch()
            batch.forgotten = [0]
            for name in [first, second] { _ = core.exchange(name, batch) { _ in nil } }
        }
        #expect(core.statistics.retired == 8)
        _ = core.exchange(StoreClient(3), StoreBatch()) { _ in nil }
        for name in [first, second] { _ = core.exchange(name, StoreBatch()) { _ in nil } }
        while core.hasWork { core.sweep(limit: 100) }
        #expect(publish(core, first, 0, 99) == .recorded)
        guard case .frame? = publish(core, second, 0, 99) else {
            Issue.record("there is room again")
            return
        }
    }

    @Test func whoMayMakeNoFramesMayUseThem() {
        let core = core()
        #expect(
            core.join(first, pageCount: 64) && core.join(second, pageCount: 64)
                && core.join(StoreClient(3), pageCount: 64))
        core.setRoom(1000, mayMakeFrames: false, of: second)
        #expect(publish(core, first, 0, 1) == .recorded)
        #expect(publish(core, second, 0, 1) == .refused)
        guard case .frame(let location)? = publish(core, StoreClient(3), 0, 1) else {
            Issue.record("the third may")
            return
        }
        #expect(publish(core, second, 0, 1) == .frame(location))
        var batch = StoreBatch()
        batch.uniform = [.init(page: 5, pattern: 5)]
        #expect(core.exchange(second, batch) { _ in nil }?.uniform == [.refused])
    }

    /// A batch of ever new patterns made and dropped a frame for each.
    @Test func aBatchMakesFewPatterns() throws {
        let backing = InMemoryFrames()
        let core = core(backing)
        #expect(core.join(first, pageCount: 4096))
        for round in UInt64(0)..<3 {
            var batch = StoreBatch()
            batch.uniform = (0..<4096).map { .init(page: 0, pattern: round << 32 + $0 + 1) }
            let before = backing.writes
            let answers = try #require(core.exchange(first, batch) { _ in nil }).uniform
            let frames = answers.count { if case .frame = $0 { true } else { false } }
            #expect(frames == FrameStoreCore.patternLimit && backing.writes - before == frames)
            #expect(answers.dropFirst(frames).allSatisfy { $0 == .refused })
            while core.hasWork { core.sweep(limit: 100) }
        }
        #expect(core.statistics.frames == 0 && core.statistics.references == 0)
    }
}

/// Frames in a dictionary, and how often one was written.
final class InMemoryFrames: FrameBacking {
    private var frames: [FrameLocation: [UInt8]] = [:]
    private(set) var writes = 0
    func write(_ bytes: [UInt8], at location: FrameLocation) throws(FrameStoreError) {
        writes += 1
        frames[location] = bytes
    }
    func copy(from old: FrameLocation, to new: FrameLocation) throws(FrameStoreError) {
        try write(frames[old] ?? [], at: new)
    }
    func matches(_ bytes: [UInt8], at location: FrameLocation) -> Bool { frames[location] == bytes }
    func discard(_ location: FrameLocation, count: Int) {
        for page in 0..<count { frames[location.advanced(by: page)] = nil }
    }
}
