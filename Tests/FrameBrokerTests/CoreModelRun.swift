import SharingTestKit
@testable import FrameStore
@testable import FrameIndex
import GuestMemory
@testable import Sharing
import TestSupport
import Testing

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
