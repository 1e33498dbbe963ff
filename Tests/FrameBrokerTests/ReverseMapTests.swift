@testable import FrameStore
@testable import FrameIndex
import TestSupport
import Testing

/// A plain dictionary of what maps what, beside a map that does the same.
private final class MapRun: FrameLifetime {
    struct Key: Hashable { var client: Int, page: ClientPage }
    struct Frame { var slot: FrameLocation, old: FrameLocation? = nil }
    /// What happened last, of what the map tells.
    enum End: Equatable {
        case freed(FrameNumber, FrameLocation)
        case left(FrameLocation)
    }

    static let pages = 5000
    let map = ReverseMap(key: 1)
    var random: SeededGenerator
    var clients: [Int: ClientMap] = [:]
    private var nextClient = 0
    /// The frame of each mapper, and the place that it maps.
    var mappers: [Key: (frame: FrameNumber, slot: FrameLocation)] = [:]
    var sighted: Set<Key> = []
    var frames: [FrameNumber: Frame] = [:]
    private var ends: [End] = []
    private var nextHash: UInt64 = 1
    /// By how much pages mostly differ from places.
    private let favourites: [Int]
    /// Walks with changes between their slices that met somebody; strays that walks met.
    private(set) var walksMeanwhile = 0
    private(set) var straysMet = 0

    init(_ purpose: String) {
        random = SeededGenerator(for: purpose)
        favourites = [0, 0, 0] + (0..<20).map { $0 * 37 - 300 }
        map.lifetime = self
        for _ in 0..<3 { join() }
    }

    func freed(_ frame: FrameNumber, at slot: FrameLocation) { ends.append(.freed(frame, slot)) }
    func left(_ slot: FrameLocation) { ends.append(.left(slot)) }

    private func join() {
        nextClient += 1
        clients[nextClient] = map.join(StoreClient(UInt32(nextClient)), pageCount: Self.pages)
    }
    private func mapper(_ key: Key) throws -> ReverseMap.Mapper {
        .init(try #require(clients[key.client]), key.page)
    }
    private func number(_ below: Int) -> Int { Int.random(in: 0..<below, using: &random) }
    private func client() throws -> Int {
        let client = clients.keys.sorted().randomElement(using: &random)
        return try #require(client)
    }
    private func slot() -> FrameLocation {
        while true {
            let slot = FrameLocation(segment: UInt32(2 + number(3)), page: UInt64(number(Self.pages)))
            if !frames.values.contains(where: { $0.slot == slot || $0.old == slot }) { return slot }
        }
    }
    /// A page that is nothing, where pages of this place mostly are.
    private func page(_ slot: FrameLocation) throws -> Key {
        while true {
            let page =
                slot.page + (random.oneIn(5) ? number(9999) - 5000 : favourites[number(favourites.count)])
            let key = Key(client: try client(), page: ClientPage(clamping: page))
            if 0..<Self.pages ~= page, mappers[key] == nil, !sighted.contains(key) { return key }
        }
    }
    private func anyFrame() -> FrameNumber? {
        frames.keys.min { ($0.value &* 2_654_435_761 ^ salt) < ($1.value &* 2_654_435_761 ^ salt) }
    }
    private var salt: UInt32 { UInt32(truncatingIfNeeded: nextHash &* 0x9E37_79B9) }

    func step() throws {
        nextHash += 1
        switch number(20) {
        case 0...2: try makeFrame()
        case 3...8:
            guard let frame = anyFrame(), let slot = frames[frame]?.slot else { return }
            let key = try page(slot)
            #expect(map.add(try mapper(key), to: frame))
            mappers[key] = (frame, slot)
        case 9...12:
            guard let frame = anyFrame() else { return }
            let keys = mappers.filter { $0.value.frame == frame }.keys
            if let key = keys.min(by: { ($0.client, $0.page) < ($1.client, $1.page) }) { try remove(key) }
        case 13, 14: swap()
        case 15...17: try acknowledge()
        case 18: try walkMeanwhile()
        default: if random.oneIn(40) { try leave() }
        }
        if nextHash % 6 == 0 { try check() }
    }

    private func makeFrame() throws {
        let slot = slot()
        let key = try page(slot)
        #expect(map.sight(try mapper(key), ContentHash(low: nextHash, high: 0)))
        let index = try mapper(key).client[key.page].number
        sighted.insert(key)
        if random.oneIn(8) { try check() }
        if random.oneIn(8) {
            // Another sees it, whose the sighting is from now on; or it is seen no more.
            let other = try page(slot)
            map.takeOver(index, from: try mapper(key), by: try mapper(other))
            sighted = [other]
            #expect(map.remove(try mapper(other)) == .sighting)
            sighted = []
            return
        }
        sighted.remove(key)
        let frame = map.makeFrame(index, of: try mapper(key), at: slot)
        frames[frame] = Frame(slot: slot)
        mappers[key] = (frame, slot)
    }

    private func remove(_ key: Key) throws {
        let frame = try #require(mappers[key]).frame
        mappers[key] = nil
        var expected: [End] = finishRelocation(of: frame)
        let left = mappers.values.count { $0.frame == frame }
        let slot = try #require(frames[frame]).slot
        if left == 0 {
            expected.append(.freed(frame, slot))
            frames[frame] = nil
        }
        #expect(map.remove(try mapper(key)) == (left == 0 ? .last(frame) : .shared(left: UInt32(left))))
        #expect(map.remove(try mapper(key)) == .nothing)
        #expect(ends == expected)
        ends = []
    }

    private func finishRelocation(of frame: FrameNumber) -> [End] {
        guard let old = frames[frame]?.old, !mappers.values.contains(where: { $0.slot == old }) else {
            return []
        }
        frames[frame]?.old = nil
        return [.left(old)]
    }

    private func swap() {
        guard let frame = anyFrame(), let old = frames[frame]?.slot else { return }
        #expect(map.mayMove(frame) == (frames[frame]?.old == nil))
        guard map.mayMove(frame) else { return }
        // Mostly at the same page number.
        var new = slot()
        let same = FrameLocation(segment: old.segment == 2 ? 3 : 2, page: UInt64(old.page))
        if !random.oneIn(4), !frames.values.contains(where: { $0.slot == same || $0.old == same }) {
            new = same
        }
        #expect(map.swapSlot(of: frame, to: new) == old)
        frames[frame] = Frame(slot: new, old: old)
    }

    private func acknowledge() throws {
        let isAny = random.oneIn(4)
        let keys = mappers.filter { isAny || frames[$0.value.frame]?.old != nil }.keys
        guard let key = keys.min(by: { ($0.page, $0.client) < ($1.page, $1.client) }),
            let (frame, mapped) = mappers[key], let slot = frames[frame]?.slot
        else { return }
        let said = random.oneIn(4) ? slot.advanced(by: 1) : slot
        let isTold = random.oneIn(8)
        #expect(map.isStale(try mapper(key)) == (mapped != slot))
        let isTaken = map.acknowledge(try mapper(key), at: isTold ? nil : said)
        #expect(isTaken == (mapped != slot && (isTold || said == slot)))
        if isTaken {
            mappers[key] = (frame, slot)
            #expect(ends == finishRelocation(of: frame))
        } else {
            #expect(ends.isEmpty)
        }
        ends = []
    }

    private func leave() throws {
        let name = try client()
        let client = try #require(clients[name])
        for key in mappers.keys.filter({ $0.client == name }) { try remove(key) }
        #expect(client.known == 0 && client.strays == 0)
        map.part(client)
        clients[name] = nil
        join()
    }

    /// Who maps the frame all the time, and does not follow it, is met.
    private func walkMeanwhile() throws {
        guard let frame = anyFrame() else { return }
        var steady = mappers.filter { $0.value.frame == frame }.mapValues(\.slot)
        guard let kept = steady.keys.first else { return }
        var met: Set<Key> = []
        var cursor = ReverseMap.Cursor()
        while !cursor.isAtEnd {
            map.walk(frame, from: &cursor, limit: number(40)) {
                met.insert(Key(client: Int($0.client.name.value), page: $0.page))
            }
            guard let slot = frames[frame]?.slot else { return }
            let key = try page(slot)
            #expect(map.add(try mapper(key), to: frame))
            mappers[key] = (frame, slot)
            if let gone = mappers.first(where: { $0.value.frame == frame && $0.key != kept }) {
                try remove(gone.key)
                steady[gone.key] = nil
            }
            walksMeanwhile += 1
        }
        #expect(steady.keys.allSatisfy(met.contains))
    }

    private func check() throws {
        #expect(map.relocations.count == frames.values.count { $0.old != nil })
        for (number, client) in clients {
            let own = mappers.filter { $0.key.client == number }
            #expect(client.leases == own.count)
            #expect(client.known == own.count + sighted.count { $0.client == number })
            var counts: [Int32: Int] = [:]
            var strays = 0
            for (key, value) in own {
                #expect(map.frame(of: try mapper(key)) == value.frame)
                if client[key.page].isStray {
                    strays += 1
                } else {
                    counts[ClientMap.displacement(key.page, value.slot), default: 0] += 1
                }
            }
            #expect(client.strays == strays)
            let numberings = client.numberings.all
            #expect(numberings.count <= Numberings.limit && numberings[0].displacement == 0)
            for numbering in numberings.dropFirst() {
                #expect(counts[numbering.displacement] == Int(numbering.pages))
            }
            #expect(numberings.reduce(0) { $0 + Int($1.pages) } == counts.values.reduce(0, +))
        }
        guard let frame = anyFrame() else { return }
        let expected = Set(mappers.filter { $0.value.frame == frame }.keys)
        #expect(map.references(frame) == UInt32(expected.count) && map.slot(of: frame) == frames[frame]?.slot)
        var met: [Key] = []
        var cursor = ReverseMap.Cursor()
        while !cursor.isAtEnd {
            map.walk(frame, from: &cursor, limit: number(300)) {
                met.append(Key(client: Int($0.client.name.value), page: $0.page))
                if $0.client[$0.page].isStray { straysMet += 1 }
            }
        }
        #expect(met.count == expected.count && Set(met) == expected)
    }
}

/// The reverse map against a dictionary; and what it promises about time and memory.
@Suite struct ReverseMapTests {
    @Test(arguments: 0..<4) func agreesWithADictionary(round: Int) throws {
        let run = MapRun("reverse map, round \(round)")
        for _ in 0..<Int(environmentNumber("MINGLE_MODEL_STEPS") ?? 12_000) / 12 { try run.step() }
        #expect(run.straysMet > 0 && run.walksMeanwhile > 0)
    }

    private func frame(_ map: ReverseMap, _ client: ClientMap, _ page: ClientPage, at slot: FrameLocation)
        throws
        -> FrameNumber
    {
        let mapper = ReverseMap.Mapper(client, page)
        #expect(map.sight(mapper, ContentHash(low: slot.value, high: UInt64(page))))
        return map.makeFrame(client[page].number, of: mapper, at: slot)
    }

    /// Guests whose memory is the same, but elsewhere, are found by their numberings alone.
    @Test func whatLiesElsewhereTogetherHasNoStrays() throws {
        let map = ReverseMap(key: 1)
        let donor = map.join(StoreClient(1), pageCount: 40_000)
        let other = map.join(StoreClient(2), pageCount: 40_000)
        var frames: [FrameNumber] = []
        for page in 0..<ClientPage(20_000) {
            let frame = try frame(map, donor, page, at: FrameLocation(segment: 2, page: UInt64(page)))
            // Four stretches, each by another distance, and a page now and then that lies anywhere.
            let elsewhere = page % 100 == 99 ? 39_999 - page / 100 : page + page / 5000 * 1000
            #expect(map.add(.init(other, elsewhere), to: frame))
            frames.append(frame)
        }
        #expect(other.strays < 200 && other.numberings.all.count == Numberings.limit)
        #expect(donor.strays == 0 && donor.numberings.all.count == 1)
        var looks = 0
        for frame in frames where frame.value % 100 != 0 {
            var cursor = ReverseMap.Cursor()
            map.walk(frame, from: &cursor, limit: 60) { _ in looks += 1 }
        }
        #expect(looks >= frames.count * 2 * 98 / 100, "\(looks)")
    }

    /// However many strays there are, and whatever a client claims to have, a slice is short.
    @Test func slicesAreShort() throws {
        let map = ReverseMap(key: 1)
        let client = map.join(StoreClient(1), pageCount: Int(FrameLocation.segmentSpan))
        var random = SeededGenerator(for: "reverse map, strays")
        let frame = try frame(map, client, 5, at: FrameLocation(segment: 2, page: 5))
        for number in 0..<5_000 {
            let page = ClientPage.random(in: 6..<ClientPage(FrameLocation.segmentSpan), using: &random)
            if client[page].isNothing { #expect(map.add(.init(client, page), to: frame), "\(number)") }
        }
        #expect(client.strays > 4_000)
        var cursor = ReverseMap.Cursor()
        var (met, slices) = (0, 0)
        while !cursor.isAtEnd {
            var inSlice = 0
            map.walk(frame, from: &cursor, limit: 1_000) { _ in inSlice += 1 }
            #expect(inSlice <= 1_100)
            met += inSlice
            slices += 1
        }
        #expect(met == Int(map.references(frame)) && slices > 100)
    }

    /// Nothing for a frame, and for a page 4 bytes.
    @Test func frameAndMapperTakeWhatTheyTook() {
        #expect(MemoryLayout<ContentTable.Entry>.size == 32)
        #expect(MemoryLayout<MapperWord>.size == 4)
        #expect(MemoryLayout<Numberings.Numbering>.stride == 12)
    }
}
