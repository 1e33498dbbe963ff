import SharingTestKit
@testable import FrameStore
@testable import FrameIndex
import GuestMemory
@testable import Sharing
import TestSupport
import Testing

/// The slow, obvious store: dictionaries of contents and of what each page holds.
struct StoreModel {
    struct Key: Hashable { var client: UInt32, page: UInt32 }
    enum Holding: Equatable {
        case sighted(ContentHash)
        case leased(FrameLocation)
    }
    struct Frame { var bytes: [UInt8], hash: ContentHash?, word: UInt64? }
    struct Member { var pageCount: Int, isSilent = false, lastSpoke: Int }

    var holdings: [Key: Holding] = [:]
    var frames: [FrameLocation: Frame] = [:]
    var pending: [Key: FrameLocation] = [:]
    var members: [UInt32: Member] = [:]
    /// When each place lost its last reference.
    var freedAt: [FrameLocation: Int] = [:]
    var step = 0

    func references(_ location: FrameLocation) -> Int {
        holdings.values.count { $0 == .leased(location) }
    }
    func isUsed(_ location: FrameLocation) -> Bool {
        guard let word = frames[location]?.word else { return references(location) > 0 }
        return frames.contains { $0.value.word == word && references($0.key) > 0 }
    }
    func sighters(_ hash: ContentHash) -> [Key] { holdings.filter { $0.value == .sighted(hash) }.map(\.key) }

    mutating func forget(_ key: Key) {
        pending[key] = nil
        guard case .leased(let location)? = holdings.removeValue(forKey: key), !isUsed(location) else {
            return
        }
        let word = frames[location]?.word
        for (other, frame) in frames where other == location || (frame.word != nil && frame.word == word) {
            freedAt[other] = step
            frames[other] = nil
        }
    }
}

/// Drives a core and the model with the same random steps and compares after each.
final class ModelRun {
    let backing = InMemoryBacking()
    let core: FrameStoreCore
    var model = StoreModel()
    var random: SeededGenerator
    let hash: ([UInt8]) -> ContentHash
    let contents: [[UInt8]] = (1...20).map { [UInt8](repeating: UInt8($0), count: 4095) + [0] }
    let words: [UInt64] = [0xCCCC_CCCC_CCCC_CCCC, 7]
    var nextClient: UInt32 = 1

    init(_ name: String, constantHash: Bool) throws {
        random = SeededGenerator(for: name)
        let hasher = try #require(PageHasher(secret: [UInt8](repeating: 3, count: PageHasher.secretSize)))
        hash = constantHash ? { _ in ContentHash(low: 1, high: 1) } : { hasher($0) }
        core = FrameStoreCore(backing: backing, indexKey: 1, hash: hash)
    }

    func run(steps: Int) throws {
        for _ in 0..<steps {
            model.step += 1
            let before = backing.frames
            try takeStep()
            try compare(before)
        }
        settle()
    }

    /// Whoever is told to speak hears something or is not told any more, so that in the end nobody is.
    private func settle() {
        let names = model.members.filter { !$0.value.isSilent }.keys.sorted().map { StoreClient($0) }
        for _ in 0..<100 {
            while core.hasWork { core.sweep(limit: 8) }
            let told = names.filter { core.wantsToHear($0) }
            if told.isEmpty { return }
            for name in told {
                guard let reply = core.exchange(name, StoreBatch(), staging: { _ in nil }) else { continue }
                // As its pages go home.
                var batch = StoreBatch()
                batch.forgotten = reply.lonely + reply.misplaced
                if !batch.isEmpty { _ = core.exchange(name, batch) { _ in nil } }
            }
        }
        Issue.record("clients are told to speak without end")
    }

    /// Who must be told to speak, by what is to be told: news, retired frames, lonely and misplaced ones.
    private func checkNotices() {
        let waiting = core.clientsHoldingBack()
        for (name, member) in model.members where !member.isSilent {
            let frames = model.holdings.compactMap { key, holding -> FrameLocation? in
                if case .leased(let location) = holding, key.client == name { location } else { nil }
            }
            let isToMove = frames.contains { location in
                guard let frame = model.frames[location], frame.word == nil else { return false }
                return frame.hash == nil || model.references(location) == 1
            }
            let hasNews = model.pending.keys.contains { $0.client == name }
            if hasNews || isToMove || waiting.contains(StoreClient(name)) {
                #expect(core.wantsToHear(StoreClient(name)), "news \(hasNews), to move \(isToMove)")
            }
        }
    }

    private func takeStep() throws {
        let speakers = model.members.filter { !$0.value.isSilent }.keys.sorted()
        switch Int.random(in: 0..<100, using: &random) {
        case 0..<4 where model.members.count < 5:
            let pages = Int.random(in: 1...40, using: &random)
            #expect(core.join(StoreClient(nextClient), pageCount: pages))
            model.members[nextClient] = .init(pageCount: pages, lastSpoke: model.step)
            nextClient += 1
        case 4:
            guard let name = speakers.randomElement(using: &random) else { return }
            core.silence(StoreClient(name))
            model.members[name]?.isSilent = true
        case 5:
            guard let name = model.members.keys.sorted().randomElement(using: &random) else { return }
            core.leave(StoreClient(name))
            while core.leases(of: StoreClient(name)) != nil {
                core.sweep(limit: Int.random(in: 1...8, using: &random))
            }
            for key in model.holdings.keys where key.client == name { model.forget(key) }
            model.members[name] = nil
        case 6..<12: core.sweep(limit: Int.random(in: 1...8, using: &random))
        default:
            guard let name = speakers.randomElement(using: &random) else { return }
            try exchange(name)
        }
    }

    private func exchange(_ name: UInt32) throws {
        let pages = UInt32(model.members[name]?.pageCount ?? 1)
        func page() -> UInt32 { UInt32.random(in: 0..<pages, using: &random) }
        func some(_ most: Int) -> Range<Int> { 0..<Int.random(in: 0...most, using: &random) }
        var batch = StoreBatch()
        var staged: [[UInt8]] = []
        batch.forgotten = some(3).map { _ in page() }
        batch.sightings = some(4).map { _ in
            .init(page: page(), hash: hash(contents.randomElement(using: &random)!))
        }
        batch.uniform = some(1).map { _ in .init(page: page(), pattern: words.randomElement(using: &random)!)
        }
        batch.publications = some(3).map { slot in
            staged.append(contents.randomElement(using: &random)!)
            return .init(page: page(), slot: UInt32(slot))
        }
        let failing = random.oneIn(40) ? 1 : 0
        backing.failingWrites = failing
        let answer = core.exchange(StoreClient(name), batch) {
            staged.indices.contains(Int($0)) ? staged[Int($0)] : nil
        }
        let reply = try #require(answer)
        let failed = backing.failingWrites < failing
        backing.failingWrites = 0
        let step = model.step
        model.members[name]?.lastSpoke = step

        for page in batch.forgotten { model.forget(.init(client: name, page: page)) }
        for (sighting, answer) in zip(batch.sightings, reply.sightings) {
            try checkSighting(.init(client: name, page: sighting.page), sighting.hash, answer)
        }
        var mayFail = failed
        for (uniform, answer) in zip(batch.uniform, reply.uniform) {
            let key = StoreModel.Key(client: name, page: uniform.page)
            model.forget(key)
            guard case .frame(let location) = answer else {
                #expect(mayFail, "a uniform page was refused")
                mayFail = false
                continue
            }
            lease(key, location, FrameStoreCore.bytes(of: uniform.pattern), nil, uniform.pattern)
        }
        for (publication, answer) in zip(batch.publications, reply.publications) {
            let key = StoreModel.Key(client: name, page: publication.page)
            try checkPublication(key, staged[Int(publication.slot)], answer, &mayFail)
        }
        for promotion in reply.promotions {
            let key = StoreModel.Key(client: name, page: promotion.page)
            #expect(model.pending.removeValue(forKey: key) == promotion.location)
        }
        for page in reply.misplaced {
            guard case .leased(let location)? = model.holdings[.init(client: name, page: page)] else {
                Issue.record("a page without a frame is called misplaced")
                continue
            }
            #expect(model.references(location) > 1)
            // Nobody finds it any more.
            model.frames[location]?.hash = nil
        }
        if !reply.hasMore { #expect(!model.pending.keys.contains { $0.client == name }) }
    }

    private func lease(
        _ key: StoreModel.Key, _ location: FrameLocation, _ bytes: [UInt8], _ hash: ContentHash?,
        _ word: UInt64?
    ) {
        if model.frames[location] == nil {
            model.frames[location] = .init(bytes: bytes, hash: hash, word: word)
        }
        #expect(model.frames[location]?.bytes == bytes)
        model.holdings[key] = .leased(location)
    }

    private func checkSighting(_ key: StoreModel.Key, _ hash: ContentHash, _ answer: StoreAnswer) throws {
        model.forget(key)
        let sighters = model.sighters(hash)
        let frames = model.frames.filter { $0.value.hash == hash }
        switch answer {
        case .frame(let location):
            #expect(frames[location] != nil, "a frame of this hash")
            model.holdings[key] = .leased(location)
        case .publish: #expect(sighters.contains { model.members[$0.client]?.isSilent == false })
        case .recorded:
            // Nobody had it, or somebody who cannot be told any more.
            for sighter in sighters {
                #expect(model.members[sighter.client]?.isSilent == true)
                model.forget(sighter)
            }
            if sighters.isEmpty { #expect(frames.isEmpty) }
            model.holdings[key] = .sighted(hash)
        case .refused: Issue.record("a sighting was refused")
        }
    }

    private func checkPublication(
        _ key: StoreModel.Key, _ bytes: [UInt8], _ answer: StoreAnswer, _ mayFail: inout Bool
    ) throws {
        model.forget(key)
        let hash = hash(bytes)
        let sighters = model.sighters(hash)
        let same = model.frames.filter { $0.value.hash == hash && $0.value.bytes == bytes }
        let chain = sighters.count + model.frames.values.count { $0.hash == hash }
        #expect(sighters.count <= 1 && chain <= FrameStoreCore.chainLimit && same.count <= 1)
        if let frame = same.first {
            #expect(answer == .frame(frame.key))
            return lease(key, frame.key, bytes, hash, nil)
        }
        guard let sighter = sighters.first else {
            #expect(answer == (chain < FrameStoreCore.chainLimit ? .recorded : .refused))
            if answer == .recorded { model.holdings[key] = .sighted(hash) }
            return
        }
        if model.members[sighter.client]?.isSilent == true {
            #expect(answer == .recorded)
            model.forget(sighter)
            model.holdings[key] = .sighted(hash)
            return
        }
        guard case .frame(let location) = answer else {
            #expect(mayFail && answer == .refused)
            mayFail = false
            return
        }
        #expect(model.frames[location] == nil, "a place in use was given away")
        lease(key, location, bytes, hash, nil)
        model.holdings[sighter] = .leased(location)
        model.pending[sighter] = location
    }

    /// The two agree, and no frame went or came too early.
    private func compare(_ before: [FrameLocation: [UInt8]]) throws {
        checkNotices()
        let leases = model.holdings.values.count { if case .leased = $0 { true } else { false } }
        #expect(core.statistics.references == leases)
        #expect(core.statistics.sightings == model.holdings.count - leases)
        #expect(core.statistics.frames == model.frames.count)
        #expect(core.statistics.clients == model.members.count)
        for name in model.members.keys {
            let held = model.holdings.count { key, holding in
                if case .leased = holding, key.client == name { true } else { false }
            }
            #expect(core.leases(of: StoreClient(name)) == held)
        }
        for (location, frame) in model.frames {
            #expect(backing.frames[location] == frame.bytes, "at \(location)")
        }
        #expect(backing.frames.count == core.statistics.frames + core.statistics.retired)
        for (location, bytes) in before where backing.frames[location] != bytes {
            guard let freed = model.freedAt[location] else {
                Issue.record("a frame in use changed: \(location)")
                continue
            }
            let silentNow = model.members.filter { !$0.value.isSilent }
            #expect(
                silentNow.allSatisfy { $0.value.lastSpoke >= freed },
                "\(location) went before everybody spoke")
            model.freedAt[location] = nil
        }
    }
}

@Suite struct CoreModelTests {
    @Test(arguments: [false, true])
    func agreesWithTheModel(constantHash: Bool) throws {
        for round in 0..<4 {
            let run = try ModelRun(
                "store model, round \(round), constant hash \(constantHash)", constantHash: constantHash)
            try run.run(steps: 1500)
        }
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

    @Test func misplacedFramesGetBetterPlaces() throws {
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
        #expect(core.exchange(names[0], StoreBatch()) { _ in nil }?.misplaced == [])
        var batch = StoreBatch()
        batch.forgotten = [1]
        _ = core.exchange(names[2], batch) { _ in nil }
        // Who would not move is not asked to, and the frame stays where others find it.
        let unmoved = core.exchange(names[0], .forNewsOnly) { _ in nil }
        #expect(unmoved?.misplaced == [] && unmoved?.lonely == [])
        #expect(publish(names[2], 5, 20) == .frame(aside))
        batch.forgotten = [5]
        _ = core.exchange(names[2], batch) { _ in nil }
        speak()
        speak()
        #expect(core.exchange(names[0], StoreBatch()) { _ in nil }?.misplaced == [1])
        // The other is told as well, though its neighbour was not looked at again.
        #expect(core.exchange(names[1], StoreBatch()) { _ in nil }?.misplaced == [1])
        #expect(publish(names[0], 1, 20) == .recorded)
        #expect(publish(names[1], 1, 20) == .frame(first.advanced(by: 1)))
        speak()
        speak()
        #expect(backing.frames.keys.sorted() == [first, first.advanced(by: 1)])
        #expect(core.exchange(names[0], StoreBatch()) { _ in nil }?.misplaced == [])
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
        var lonely: [ClientPage] = []
        for _ in 0..<10 where lonely.isEmpty {
            #expect(core.wantsToHear(first))
            lonely = core.exchange(first, StoreBatch(), staging: { _ in nil })?.lonely ?? []
        }
        #expect(lonely == [99_000])
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
    }
}
