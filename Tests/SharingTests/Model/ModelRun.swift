@testable import SharingTestKit
import GuestMemory
import TestSupport

@testable import Sharing
import FrameStore
@testable import FrameIndex

/// Runs a sequence of operations on a world of its own.
final class ModelRun {
    struct Setup: Sendable {
        var guests = 3
        var pages = 24
        var options = KernelModel.Options()
        var sabotage = KernelModel.Sabotage.none
        var mappingLimit = 1000
        var domains = 2
        /// What the clock goes on with each pass at the end, nanoseconds.
        var time: UInt64 = 0
        var policy: @Sendable (inout SharingPolicy) -> Void = { _ in }
    }
    /// A device's work on its way.
    private struct Device {
        /// Steps of a copy that are left; each may have to wait.
        var steps: [() -> Void] = []
        var transfers: [() -> Void] = []
    }

    let world = World()
    private let setup: Setup
    private var members: [Member?] = []
    private var devices: [Device]

    init(_ setup: Setup) throws {
        self.setup = setup
        for _ in 0..<setup.domains {
            world.domains.append(FakeDomain(world, constantHash: setup.options.constantHash))
        }
        devices = [Device](repeating: Device(), count: setup.guests)
        for index in 0..<setup.guests { members.append(try makeMember(index)) }
    }

    private func makeMember(_ index: Int) throws -> Member {
        var policy = SharingPolicy()
        policy.backoffLimit = 2
        policy.uniformRun = 3
        policy.runLimit = 8
        policy.pauseLimit = 8
        policy.auditPasses = 4
        policy.mappingLimit = setup.mappingLimit
        policy.arrangementGain = 1
        policy.arrangementInterval = 3
        policy.arrangementRest = 2
        setup.policy(&policy)
        // The last guest is alone in the second domain, or with the one before.
        let domain = world.domains[setup.guests > 2 && index >= 2 ? 1 : 0]
        let member = try Member(
            "guest \(index)", pageCount: setup.pages, options: setup.options, policy: policy, domain, world)
        member.guest.sabotage = setup.sabotage
        return member
    }

    /// - Returns: what went wrong, and after which operation.
    func run(_ operations: [Operation], quiesce: Bool = true) throws -> String? {
        for (index, operation) in operations.enumerated() {
            try perform(operation)
            for member in world.members { member.guest.check("after operation \(index)") }
            if let violation = world.violations.first {
                return "operation \(index) \(operation): \(violation)"
            }
        }
        if quiesce { try settle() }
        return world.violations.first.map { "after quiescence: \($0)" }
    }

    func perform(_ operation: Operation) throws {
        switch operation {
        case .write(let guest, let page, let half, let value):
            members[guest]?.guest.guestWrites(page, half: half, value)
        case .fill(let guest, let page, let count, let first, let second):
            for page in page..<page + count {
                members[guest]?.guest.guestWrites(page, half: 0, first)
                members[guest]?.guest.guestWrites(page, half: 1, second)
            }
        case .read(let guest, let page): members[guest]?.guest.guestReads(page)
        case .deviceWrite(let guest, let page, let value): beginCopy(guest, page, value)
        case .deviceStep(let guest): if !devices[guest].steps.isEmpty { devices[guest].steps.removeFirst()() }
        case .transfer(let guest, let page, let value): beginTransfer(guest, page, value)
        case .transferEnds(let guest):
            if !devices[guest].transfers.isEmpty { devices[guest].transfers.removeFirst()() }
        case .pass(let guest, let budget, let meanwhile):
            try during(guest, meanwhile) { try $0.pass(world, budget: budget) }
        case .hear(let guest, let meanwhile): try during(guest, meanwhile) { $0.pollPromotions() }
        case .setSharing(let guest, let on): setPolicy(guest) { $0.isEnabled = on }
        case .setHold(let guest, let on): setPolicy(guest) { $0.holdsMerges = on }
        case .setWindow(let guest, let window): setPolicy(guest) { $0.window = window }
        case .exit(let guest): exit(guest)
        case .start(let guest): if members[guest] == nil { members[guest] = try makeMember(guest) }
        case .loseStore(let guest, let after):
            members[guest]?.stores.last?.nextFate = after ? .lostAfter : .lostBefore
        case .brokerDies(let domain): world.domains[domain].die()
        case .failMap(let guest, let isLost):
            members[guest]?.guest.mapFault = isLost ? .wentHome : .unchanged
        case .relocate(let guest, let page, let aside):
            guard let member = members[guest], let store = member.stores.last else { return }
            member.domain.relocate(page, of: store.name, aside: aside)
        case .failWrites(let domain): world.domains[domain].backing.failingWrites = 1
        case .sweep(let domain): world.domains[domain].core.sweep(limit: 2)
        }
    }

    func member(_ index: Int) -> Member? { members[index] }

    private func setPolicy(_ guest: Int, _ change: (inout SharingPolicy) -> Void) {
        // The sharing thread takes a policy between passes.
        guard let member = members[guest], !member.isPassing else { return }
        var policy = member.engine.policy
        change(&policy)
        member.engine.setPolicy(policy)
    }

    private func during(
        _ index: Int, _ meanwhile: [Operation.Meanwhile], _ body: (Member) throws -> Void
    ) throws {
        guard let member = members[index], !member.isPassing else { return }
        var count = 0
        var failure: (any Error)?
        member.guest.hook = { [unowned self] _ in
            defer { count += 1 }
            for item in meanwhile where item.primitive == count {
                // A process does not end in the middle of its own pass here.
                if case .exit(index) = item.operation { continue }
                do { try self.perform(item.operation) } catch { failure = error }
            }
        }
        defer { member.guest.hook = { _ in } }
        try body(member)
        if let failure { throw failure }
    }

    private func exit(_ index: Int) {
        guard let member = members[index], !member.isPassing else { return }
        member.guest.isDestroyed = true
        world.members.removeAll { $0 === member }
        devices[index] = Device()
        members[index] = nil
        member.stores.forEach { $0.end() }
    }

    // MARK: devices

    private func beginCopy(_ index: Int, _ page: Int, _ value: UInt64) {
        guard let guest = members[index]?.guest, guest.mayWrite else { return }
        guest.inFlight.begin(page..<page + 1)
        for half in 0...1 {
            devices[index].steps.append {
                guest.whenWritable(page) {
                    guest.writable(page).content.write(half, value)
                    guest.oracle[page].write(half, value)
                }
            }
        }
        // One thread: it marks only when its copies went through, and is stopped by a pause.
        devices[index].steps.append { Self.later(guest, page) { guest.vmmWrites.mark(page..<page + 1) } }
        devices[index].steps.append { Self.later(guest, page) { guest.inFlight.end(page..<page + 1) } }
    }

    private static func later(_ guest: KernelModel, _ page: Int, _ act: @escaping () -> Void) {
        if guest.pauses > 0 || guest.blocked.contains(where: { $0.page == page }) {
            guest.blocked.append((page, { later(guest, page, act) }))
        } else {
            act()
        }
    }

    private func beginTransfer(_ index: Int, _ page: Int, _ value: UInt64) {
        guard let guest = members[index]?.guest, guest.mayWrite else { return }
        guest.inFlight.begin(page..<page + 1)
        var target: HostPage?
        guest.whenWritable(page) { target = guest.writable(page) }
        devices[index].transfers.append {
            // Not even a pause stops it, but a page that it could not pin yet.
            guest.whenPinned({ target != nil }) {
                target?.content = Content(first: value, second: value)
                guest.oracle[page] = Content(first: value, second: value)
                Self.later(guest, page) {
                    guest.vmmWrites.mark(page..<page + 1)
                    guest.inFlight.end(page..<page + 1)
                }
            }
        }
    }

    private func finishDevices() throws {
        for index in devices.indices {
            while !devices[index].steps.isEmpty { devices[index].steps.removeFirst()() }
            while !devices[index].transfers.isEmpty { devices[index].transfers.removeFirst()() }
        }
    }

    // MARK: the end

    private func settle() throws {
        try finishDevices()
        for index in members.indices {
            setPolicy(index) {
                $0.isEnabled = true
                $0.holdsMerges = false
            }
            members[index]?.guest.mapFault = .none
            members[index]?.stores.last?.nextFate = .answered
        }
        for domain in world.domains {
            domain.backing.failingWrites = 0
            domain.settle()
        }
        try passesOfAll(150)
        let arrangements = world.members.map(\.engine.statistics.arrangements)
        try passesOfAll(50)
        // With few mappings, what was arranged makes room for pages that had to wait.
        for (member, before) in zip(world.members, arrangements)
        where !member.engine.policy.arrangesAll && setup.mappingLimit >= 1000
            && member.engine.statistics.arrangements != before
        {
            world.violated("\(member.guest.name): mappings are arranged though nothing changes")
        }
        for member in world.members { checkSettled(member) }
        for domain in world.domains where setup.mappingLimit >= 1000 && !domain.core.map.relocations.isEmpty {
            world.violated("\(domain.core.map.relocations.count) frames move for ever")
        }
        if !setup.options.constantHash, setup.mappingLimit >= 1000,
            !setup.options.readsAreReported
        {
            checkRate()
        }
        try goHome()
    }

    private func passesOfAll(_ count: Int) throws {
        for _ in 0..<count {
            world.time += setup.time
            for member in members { try member?.pass(world) }
        }
    }

    private func checkSettled(_ member: Member) {
        let name = member.guest.name
        if !member.guest.blocked.isEmpty {
            world.violated("\(name): \(member.guest.blocked.count) writers wait for ever")
        }
        if member.guest.isWindowOpen { world.violated("\(name): a window is open for ever") }
        let mapped = member.mappedFrames
        let current = ObjectIdentifier(member.domain.backing)
        for page in 0..<setup.pages {
            if case .frame(let store, _) = member.guest.backing[page], store != current {
                world.violated("\(name): page \(page) still maps a lost store")
            }
        }
        let leases = member.stores.last?.leases ?? 0
        if leases != mapped.count {
            world.violated("\(name): \(leases) references for \(mapped.count) mapped pages")
        }
        if member.engine.statistics.pagesMapped != mapped.count {
            world.violated(
                "\(name): counts \(member.engine.statistics.pagesMapped) of \(mapped.count) mapped pages")
        }
        if member.engine.pages.boundaries + 1 != member.guest.countBackings() {
            world.violated(
                "\(name): counts \(member.engine.pages.boundaries + 1) mappings of \(member.guest.countBackings())"
            )
        }
    }

    /// What two pages of a domain hold is shared; zeros cost nothing.
    private func checkRate() {
        for domain in world.domains {
            var holders: [Content: [(Member, Int)]] = [:]
            for member in world.members where member.domain === domain {
                for page in 0..<setup.pages {
                    holders[member.guest.oracle[page], default: []].append((member, page))
                }
            }
            for (content, places) in holders {
                // Uniform pages in runs and alone go two ways, which do not meet; they have a test of their own.
                if content.first == content.second, !content.isZero { continue }
                for (member, page) in places where content.isZero || places.count > 1 {
                    // A hole that was only read.
                    if member.engine.pages.kind(page) == .untouched { continue }
                    let guest = member.guest
                    let isFree =
                        guest.copies[page] == nil && (guest.backing[page] != .home || guest.home[page] == nil)
                    if isFree { continue }
                    let states = places.map { other, page in
                        let records = other.engine.pages
                        return
                            "\(other.guest.name) \(page): \(records.kind(page)), \(records.backing(page)), known \(records.isKnown(page)), watched \(other.engine.tracker.isWatched(page)), copy \(other.guest.copies[page] != nil), reported \(other.guest.log[page])"
                    }
                    world.violated(
                        "\(guest.name): page \(page) (\(content)) is not shared; \(states.joined(separator: "; "))"
                    )
                }
            }
        }
    }

    private func goHome() throws {
        for index in members.indices { setPolicy(index) { $0.isEnabled = false } }
        for _ in 0..<20 { for member in members { try member?.pass(world) } }
        for member in world.members {
            let guest = member.guest
            for page in 0..<setup.pages where guest.backing[page] != .home {
                world.violated("\(guest.name): page \(page) did not go home")
            }
        }
        for domain in world.domains {
            for member in world.members where member.domain === domain { member.engine.sendKeepalive() }
            domain.settle()
            let left = domain.core.statistics
            if left.frames + left.references + left.sightings + left.retired > 0
                || !domain.backing.frames.isEmpty
            {
                world.violated(
                    "after everybody went home the store holds \(left), \(domain.backing.frames.count) frames"
                )
            }
        }
    }
}

extension KernelModel {
    /// Runs an action once a transfer has its page.
    func whenPinned(_ isPinned: @escaping () -> Bool, _ act: @escaping () -> Void) {
        if isDestroyed { return }
        if isPinned() { return act() }
        // The page it waits for is let go first: blocked actions run in order.
        blocked.append((-1, { [self] in whenPinned(isPinned, act) }))
    }
}
