import SharingTestKit
@testable import FrameStore
@testable import FrameIndex
import TestSupport
import Testing

/// Drives a core and the model with the same random steps and compares after each.
final class CoreModelRun {
    let backing = InMemoryBacking()
    let core: FrameStoreCore
    var model = StoreModel()
    var random: SeededGenerator
    let hash: ([UInt8]) -> ContentHash
    let contents: [[UInt8]] = (1...20).map { [UInt8](repeating: UInt8($0), count: 4095) + [0] }
    let words: [UInt64] = [0xCCCC_CCCC_CCCC_CCCC, 7]
    /// What each client was told last of frames that moved.
    private var told: [UInt32: [Relocation]] = [:]
    private(set) var relocations = 0
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
                batch.forgotten = reply.singleMappers
                batch.relocated = reply.moved
                if !batch.isEmpty { _ = core.exchange(name, batch) { _ in nil } }
            }
        }
        Issue.record("clients are told to speak without end")
    }

    /// Who must be told to speak, by what is to be told: promotions, retired places, frames with a single mapper and those that moved.
    private func checkNotices() {
        let waiting = core.clientsHoldingBack()
        for (name, member) in model.members where !member.isSilent {
            let isToMove = model.holdings.contains { key, holding in
                guard case .leased(let frame, _) = holding, key.client == name,
                    model.frames[frame]?.word == nil
                else { return false }
                return model.isStale(key) || model.references(frame) == 1
            }
            let hasNews = model.pending.contains { $0.client == name }
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
        case 12..<16: try swapSlot()
        default:
            guard let name = speakers.randomElement(using: &random) else { return }
            try exchange(name)
        }
    }

    /// Somebody has a reason to give a frame another place, of another page number at times.
    private func swapSlot() throws {
        let moving = core.map.relocations.count
        #expect(moving == model.frames.values.count { $0.old != nil })
        let frames = model.frames.filter { $0.value.word == nil }.keys.sorted()
        guard let frame = frames.randomElement(using: &random), let key = model.holders(frame).first,
            let number = core.frame(of: key.page, StoreClient(key.client)),
            let place = core.slots.take(page: UInt32.random(in: 0..<40, using: &random))
        else { return }
        let fails = random.oneIn(10)
        backing.failingWrites = fails ? 1 : 0
        let isSwapped = core.swapSlot(of: number, to: place)
        backing.failingWrites = 0
        #expect(isSwapped == (model.frames[frame]?.old == nil && !fails))
        if isSwapped {
            try noteRelocation(frame, to: place)
        } else {
            #expect(core.slots.isFree(place) && backing.frames[place] == nil)
        }
    }

    private func noteRelocation(_ frame: Int, to slot: FrameLocation) throws {
        #expect(model.frames[frame]?.old == nil, "a frame that moves already moves again")
        let isTaken = model.frames.values.contains { $0.slot == slot || $0.old == slot }
        #expect(!isTaken, "a place in use was given away")
        #expect(backing.frames[slot] == model.frames[frame]?.bytes)
        relocations += 1
        model.relocate(frame, to: slot)
    }

    private func exchange(_ name: UInt32) throws {
        let pages = UInt32(model.members[name]?.pageCount ?? 1)
        func page() -> UInt32 { UInt32.random(in: 0..<pages, using: &random) }
        func some(_ most: Int) -> Range<Int> { 0..<Int.random(in: 0...most, using: &random) }
        var batch = StoreBatch()
        var staged: [[UInt8]] = []
        // What it was told to be moved, mostly; and nonsense.
        batch.relocated = told[name, default: []].filter { _ in !random.oneIn(4) }
        if random.oneIn(4) { batch.relocated.append(nonsense(page())) }
        told[name] = nil
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

        for moved in batch.relocated {
            let key = StoreModel.Key(client: name, page: moved.page)
            if case .leased(let frame, _)? = model.holdings[key], model.frames[frame]?.slot == moved.location
            {
                model.follow(key)
            }
        }
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
            #expect(model.pending.remove(key) != nil)
            model.follow(key)
            guard case .leased(_, at: promotion.location)? = model.holdings[key] else {
                Issue.record("news of a place where the frame is not")
                continue
            }
        }
        try checkMoved(name, reply)
        if !reply.hasMore { #expect(!model.pending.contains { $0.client == name }) }
    }

    private func checkMoved(_ name: UInt32, _ reply: StoreReply) throws {
        for moved in reply.moved {
            let key = StoreModel.Key(client: name, page: moved.page)
            guard case .leased(let frame, let mapped)? = model.holdings[key] else {
                Issue.record("a page without a frame is told to move")
                continue
            }
            // By the same look it may have been given its place.
            if model.frames[frame]?.slot != moved.location { try noteRelocation(frame, to: moved.location) }
            #expect(mapped != moved.location)
        }
        told[name] = reply.moved
    }

    /// A move that the client was not told of.
    private func nonsense(_ page: UInt32) -> Relocation {
        let slots = model.frames.values.map(\.slot).sorted()
        let slot = slots.randomElement(using: &random) ?? FrameLocation(77)
        return Relocation(page: page, location: random.oneIn(2) ? slot : slot.advanced(by: 1))
    }

    private func lease(
        _ key: StoreModel.Key, _ location: FrameLocation, _ bytes: [UInt8], _ hash: ContentHash?,
        _ word: UInt64?
    ) {
        let frame =
            model.frame(at: location)
            ?? model.add(.init(bytes: bytes, hash: hash, word: word, slot: location))
        #expect(model.frames[frame]?.bytes == bytes)
        model.holdings[key] = .leased(frame, at: location)
    }

    private func checkSighting(_ key: StoreModel.Key, _ hash: ContentHash, _ answer: StoreAnswer) throws {
        model.forget(key)
        let sighters = model.sighters(hash)
        switch answer {
        case .frame(let location):
            guard let frame = model.frame(at: location), model.frames[frame]?.hash == hash else {
                Issue.record("no frame of this hash")
                return
            }
            model.holdings[key] = .leased(frame, at: location)
        case .publish: #expect(sighters.contains { model.members[$0.client]?.isSilent == false })
        case .recorded:
            // Nobody had it, or somebody who cannot be told any more.
            for sighter in sighters {
                #expect(model.members[sighter.client]?.isSilent == true)
                model.forget(sighter)
            }
            if sighters.isEmpty { #expect(!model.frames.values.contains { $0.hash == hash }) }
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
        let same = model.frames.values.filter { $0.hash == hash && $0.bytes == bytes }
        let chain = sighters.count + model.frames.values.count { $0.hash == hash }
        #expect(sighters.count <= 1 && chain <= FrameStoreCore.chainLimit && same.count <= 1)
        if let frame = same.first {
            #expect(answer == .frame(frame.slot))
            return lease(key, frame.slot, bytes, hash, nil)
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
        let isTaken = model.frames.values.contains { $0.slot == location || $0.old == location }
        #expect(!isTaken, "a place in use was given away")
        lease(key, location, bytes, hash, nil)
        lease(sighter, location, bytes, hash, nil)
        model.pending.insert(sighter)
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
        for frame in model.frames.values {
            for location in [frame.slot, frame.old ?? frame.slot] {
                #expect(backing.frames[location] == frame.bytes, "at \(location)")
            }
        }
        let moving = model.frames.values.count { $0.old != nil }
        #expect(core.map.relocations.count == moving)
        #expect(backing.frames.count == core.statistics.frames + core.statistics.retired + moving)
        checkWalks()
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

    /// From one of the frames, a walk leads to just those pages that map it.
    private func checkWalks() {
        guard let frame = model.frames.filter({ $0.value.word == nil }).keys.min() else { return }
        let holders = model.holders(frame)
        guard let key = holders.first, let number = core.frame(of: key.page, StoreClient(key.client)) else {
            Issue.record("a page is known to map no frame")
            return
        }
        var found: [StoreModel.Key] = []
        var cursor = ReverseMap.Cursor()
        while !cursor.isAtEnd {
            core.map.walk(number, from: &cursor, limit: model.step % 7) {
                found.append(.init(client: $0.client.name.value, page: $0.page))
            }
        }
        #expect(found.count == holders.count && Set(found) == Set(holders))
    }
}
