@testable import SharingTestKit
@testable import FrameStore
@testable import FrameIndex
import GuestMemory

@testable import Sharing

/// A domain: a store that can die and be followed by another.
final class FakeDomain {
    private(set) var backing = ModelBacking()
    private(set) var core: FrameStoreCore
    private(set) var generation = 0
    /// Frames that got other places so far.
    private(set) var relocations = 0
    private let constantHash: Bool
    unowned let world: World

    init(_ world: World, constantHash: Bool) {
        self.world = world
        self.constantHash = constantHash
        core = Self.makeCore(backing, constantHash)
        backing.world = world
    }

    private static func makeCore(_ backing: ModelBacking, _ constantHash: Bool) -> FrameStoreCore {
        FrameStoreCore(backing: backing, indexKey: 1) { Content(bytes: $0).hash(isConstant: constantHash) }
    }

    /// The broker ends, without a word to anybody. What maps its frames keeps them.
    func die() {
        generation += 1
        backing = ModelBacking()
        backing.world = world
        core = Self.makeCore(backing, constantHash)
    }

    /// Gives the frame that a client's page maps another place, of the same page number or of the next one.
    func relocate(_ page: Int, of name: StoreClient, aside: Bool) {
        guard let client = core.clients[name],
            let frame = core.map.frame(of: .init(client.map, ClientPage(page))),
            let place = core.slots.take(page: ClientPage(aside ? page + 1 : page))
        else { return }
        if core.swapSlot(of: frame, to: place) { relocations += 1 }
    }

    func settle() { while core.hasWork { core.sweep(limit: 64) } }
}

/// A guest's end of its domain's store.
final class FakeStore: FrameStore {
    enum Fate { case answered, lostBefore, lostAfter }
    let name: StoreClient
    let batchLimit = 64
    let stagingSlots = 4
    var nextFate = Fate.answered
    /// Comes with the next answer, as if sent before the store heard that the page is forgotten.
    var strayNews: [StoreReply.Promotion] = []
    private let domain: FakeDomain
    private unowned let guest: KernelModel
    private let generation: Int
    private(set) var isLost = false
    /// Exchanges so far.
    private(set) var exchanges = 0

    init?(_ domain: FakeDomain, _ guest: KernelModel, name: StoreClient) {
        guard domain.core.join(name, pageCount: guest.pageCount) else { return nil }
        self.domain = domain
        self.guest = guest
        self.name = name
        generation = domain.generation
    }

    func exchange(_ batch: StoreBatch) throws(FrameStoreError) -> StoreReply {
        guest.step("ask", allowedInWindow: false)
        exchanges += 1
        let fate = nextFate
        nextFate = .answered
        if isLost || generation != domain.generation || fate == .lostBefore { throw lose() }
        let reply = domain.core.exchange(name, batch) { [guest] in
            Int($0) < guest.staging.count ? guest.staging[Int($0)].bytes : nil
        }
        guard var reply else {
            guest.world.violated("\(guest.name): the store found the batch illegal")
            throw lose()
        }
        if batch.hasMovedOver {
            let member = domain.world.members.first { $0.guest === guest }
            for earlier in member?.stores ?? [] where earlier !== self { earlier.end() }
        }
        if fate == .lostAfter { throw lose() }
        reply.promotions += strayNews
        strayNews = []
        // Others may act before the answer is here.
        guest.hook("answer")
        return reply
    }

    func hasNotice() -> Bool {
        guest.step("look for a notice", allowedInWindow: false)
        return isLost || generation != domain.generation || !strayNews.isEmpty
            || domain.core.wantsToHear(name)
    }

    private func lose() -> FrameStoreError {
        if generation == domain.generation { domain.core.silence(name) }
        isLost = true
        return .lost("injected")
    }

    /// The process ended.
    func end() {
        if generation != domain.generation { return }
        domain.core.leave(name)
        domain.settle()
    }

    var leases: Int { generation == domain.generation ? domain.core.leases(of: name) ?? 0 : 0 }
}

/// A guest with its engine and store.
final class Member {
    let guest: KernelModel
    let engine: SharingEngine
    let domain: FakeDomain
    /// The connections of its life, the last one current.
    var stores: [FakeStore] = []
    var isPassing = false

    init(
        _ name: String, pageCount: Int, options: KernelModel.Options, policy: SharingPolicy,
        _ domain: FakeDomain, _ world: World
    )
        throws
    {
        guest = try KernelModel(
            name, pageCount: pageCount, options: options, world: world, isPrivate: PageMap.isPrivate)
        self.domain = domain
        var ticks: UInt64 = 0
        engine = try SharingEngine(
            mapping: guest, log: guest, vmmWrites: guest.vmmWrites, inFlight: guest.inFlight, writers: guest,
            policy: policy,
            clock: {
                ticks += 1
                return ticks
            }, monotonicClock: { [unowned world] in world.time })
        world.members.append(self)
    }

    func connect(_ world: World) {
        guard let store = FakeStore(domain, guest, name: StoreClient(world.nextName)) else { return }
        world.nextName += 1
        stores.append(store)
        guest.backingStore = domain.backing
        engine.connect(store)
    }

    /// One pass, with a store if there is one. Never inside itself.
    func pass(_ world: World, budget: UInt64 = .max / 2) throws {
        if isPassing || engine.fatal != nil { return }
        isPassing = true
        defer { isPassing = false }
        if !engine.policy.isEnabled {
            if engine.mustReconnect { connect(world) }
            _ = engine.goHome(limit: 8)
            return
        }
        if !engine.statistics.hasStore { connect(world) }
        _ = try engine.pass(for: budget)
        guest.check("after a pass")
    }

    /// News is merged between passes. Never inside one.
    func pollPromotions() {
        if isPassing || engine.fatal != nil { return }
        isPassing = true
        defer { isPassing = false }
        engine.pollPromotions()
        guest.check("after news")
    }

    /// Pages that map frames of the current store, unwritten.
    var mappedFrames: [Int] {
        (0..<guest.pageCount).filter {
            if guest.copies[$0] == nil, case .frame(let store, _) = guest.backing[$0] {
                return store == ObjectIdentifier(domain.backing)
            }
            return false
        }
    }
}

/// All guests and domains of a run; collects what went wrong.
final class World: ViolationLog {
    var members: [Member] = []
    var domains: [FakeDomain] = []
    var nextName: UInt32 = 1
    /// What the engines take for the time, nanoseconds; it stands still unless a test moves it.
    var time: UInt64 = 1_000_000
    private(set) var violations: [String] = []

    func violated(_ what: String) { if violations.count < 8 { violations.append(what) } }

    /// Nobody may map a place of a store that is being changed.
    func checkUnmapped(_ location: FrameLocation, of backing: ModelBacking, _ what: String) {
        for member in members where !member.guest.isDestroyed {
            for page in 0..<member.guest.pageCount
            where member.guest.copies[page] == nil
                && member.guest.backing[page] == .frame(ObjectIdentifier(backing), location)
            {
                violated("\(location) \(what) while \(member.guest.name) maps it at \(page)")
            }
        }
    }
}
