internal import FrameStore
internal import FrameIndex
internal import CLinux
internal import LinuxHost

/// The broker: one thread, one loop, never blocks on a client.
///
/// Each turn takes at most one message from every client, as many as fit into its time, in ``TurnOrder``; and a slice of the
/// work that clients left behind. So who asks for little waits for one message of the others, and not for one of each.
final class BrokerServer {
    private let listener: PacketSocket
    private(set) var limits: BrokerLimits
    private let guardian: Guardian?
    let offers: OfferBook?
    /// This process, which connects on behalf of the guests that it offers a connection.
    let ownProcess: PeerIdentity?
    private let hasOwnCgroup: () -> Bool
    private(set) var sessions: [Session] = []
    var accounts: [Session.Owner: ProcessAccount] = [:]
    var order = TurnOrder<Session.Owner, ObjectIdentifier>()
    private var memory = HostMemoryWatch()
    private var domains: [String: BrokerDomain] = [:]
    private var numbers = SessionNumbers()
    private var nextPrivate: UInt64 = 1
    private var board = PaceBoard<Session.Owner>()
    private var buffer = [UInt8](repeating: 0, count: BrokerProtocol.messageLimit)
    private var lastClient: UInt64
    private var hadClient = false
    private var acceptAgain: UInt64 = 0
    private var nextCheck: UInt64 = 0
    /// Somebody may have to be told to speak; not looked at before that time.
    private var hasNotices = false
    private var nextNotices: UInt64 = 0

    /// - Parameters:
    ///   - listener: a listening packet socket.
    ///   - guardian: looks after the supervisor.
    ///   - offers: hands connections to guests that lost theirs; nil: nobody does.
    init(
        listener: consuming OwnedDescriptor, limits: BrokerLimits, descriptorLimit: Int,
        guardian: Guardian? = nil, offers: OfferBook? = nil, hasOwnCgroup: @escaping () -> Bool
    ) {
        self.listener = PacketSocket(descriptor: listener)
        self.limits = limits
        self.limits.fit(descriptors: descriptorLimit)
        self.guardian = guardian
        self.offers = offers
        ownProcess = try? Peer(number: HostProcess.number, ability: limits.ability).identity
        self.hasOwnCgroup = hasOwnCgroup
        lastClient = monotonicNanoseconds()
    }

    /// Serves until no client is left.
    func run() {
        offers?.oweEverybody()
        while !isOver() { turn() }
    }

    private func isOver() -> Bool {
        guard !sessions.contains(where: { $0.state != .observing }) else {
            lastClient = monotonicNanoseconds()
            return false
        }
        let patience = UInt64(hadClient ? limits.linger : limits.firstClient) * 1_000_000
        guard monotonicNanoseconds() - lastClient > patience else { return false }
        // Somebody may wait at the door.
        acceptConnections()
        return !sessions.contains { $0.state != .observing }
    }

    private func turn() {
        let hasWork = domains.values.contains { $0.core.hasWork }
        let now = monotonicNanoseconds()
        var watch = PollList()
        watch.reserveCapacity(2 + sessions.count * 2)
        let door = acceptAgain > now ? nil : watch.add(listener.descriptor.number, Int16(POLLIN))
        let supervisor = guardian.flatMap { watch.add($0.descriptor, Int16(POLLIN)) }
        var said: [(session: Session, place: Int)] = []
        var ended: [(session: Session, place: Int)] = []
        for session in sessions {
            if let interest = session.interest, let place = watch.add(interest.descriptor, interest.events) {
                said.append((session, place))
            }
            if let place = watch.add(session.processEnd, Int16(POLLIN)) { ended.append((session, place)) }
        }
        watch.wait(milliseconds: hasWork ? 0 : patience(now))
        listen(said.map { ($0.session, watch.events($0.place)) }.filter { $0.1 != 0 })
        // After its messages: what it still said counts for nothing, but order keeps this simple to follow.
        for (session, place) in ended where watch.events(place) != 0 { session.end() }
        if watch.events(supervisor) != 0 || guardian?.isAlone == true { guardian?.look() }
        if watch.events(door) != 0 { acceptConnections() }
        if monotonicNanoseconds() >= nextCheck { checkPatience() }
        sweep()
        for domain in domains.values where domain.occurrences != domain.core.occurrences {
            domain.occurrences = domain.core.occurrences
            hasNotices = true
        }
        if hasNotices { sendNotices() }
    }

    /// How long to wait for somebody to speak, milliseconds: for ever would do when all who are there joined, and nothing
    /// waits for any of them.
    private func patience(_ now: UInt64) -> Int32 {
        if offers?.isEmpty == false { return 100 }
        if guardian?.isAlone == true || sessions.isEmpty || acceptAgain > now || hasNotices { return 100 }
        let isCalm = sessions.allSatisfy {
            ($0.state == .joined || $0.state == .silent) && !$0.hasUnsent
        }
        return isCalm && !domains.values.contains { $0.core.hasRetired } ? 10_000 : 250
    }

    /// Tells clients for whom something waits to speak. Who works hears of it with the answers, so that only those are told
    /// that were quiet for a moment.
    private func sendNotices() {
        let now = monotonicNanoseconds()
        guard now >= nextNotices else { return }
        nextNotices = now + UInt64(limits.notice) * 500_000
        hasNotices = false
        for session in sessions where session.mayBeNoticed {
            guard session.domain?.core.wantsToHear(session.name) == true else { continue }
            if now > session.spoke, now - session.spoke >= UInt64(limits.notice) * 1_000_000 {
                session.notify()
            } else {
                hasNotices = true
            }
        }
    }

    private func acceptConnections() {
        for _ in 0..<limits.acceptsPerTurn {
            do throws(LinuxError) {
                let socket = try listener.accept()
                let session = try Session(
                    number: numbers.next { number in sessions.contains { $0.number == number } },
                    socket: socket, limits.ability)
                makePlace(for: session)
                remember(session)
                sessions.append(session)
            } catch {
                if error.code == EAGAIN { return }
                // Out of descriptors or memory: the door stays shut for a moment, instead of a busy loop.
                if error.code == EMFILE || error.code == ENFILE || error.code == ENOMEM {
                    acceptAgain = monotonicNanoseconds() + 200_000_000
                    return
                }
            }
        }
    }

    func serve(_ session: Session, _ events: Int16) {
        // Its place may have been taken since.
        if session.state == .gone { return }
        if session.hasUnsent {
            if events & Int16(POLLOUT) != 0, session.flush() { return }
            return session.close()
        }
        switch session.receive(into: &buffer) {
        case .nothing: break
        case .closed, .odd: session.close()
        case .packet(let bytes, let passed):
            let descriptor = passed >= 0 ? OwnedDescriptor(adopting: passed) : nil
            if !handle(bytes, descriptor, session) { session.close() }
        }
    }

    /// - Returns: false when the message is against the rules.
    private func handle(_ bytes: [UInt8], _ descriptor: consuming OwnedDescriptor?, _ session: Session)
        -> Bool
    {
        var reader = WireReader(bytes)
        let kind = reader.take(UInt8.self).flatMap { MessageKind(rawValue: $0) }
        switch (kind, session.state) {
        case (.hello, .greeting):
            return welcome(&reader, descriptor, session)
        case (.observe, .greeting) where reader.left == 0:
            session.observe()
            return true
        case (.batch, .joined):
            let began = threadCPUNanoseconds()
            guard let (number, batch, movedFrom) = BatchCoding.decode(&reader), let domain = session.domain
            else { return false }
            if !batch.isEmpty {
                memory.look(monotonicNanoseconds())
                accounts[session.owner]?.giveRoom(
                    to: session, for: batch, memory, fixed: limits.pagesOfProcess)
            }
            guard
                var reply = domain.core.exchange(session.name, batch, staging: { session.stagedPage($0) })
            else { return false }
            let now = monotonicNanoseconds()
            board.note(
                session.number, of: session.owner, waiting: batch.waiting, asks: !batch.isEmpty, now)
            reply.market = board.market(now)
            nameProcesses(of: &reply.companions, domain)
            reply.microseconds = UInt32(clamping: (threadCPUNanoseconds() - began) / 1000)
            session.hear()
            if domain.core.wantsToHear(session.name) { hasNotices = true }
            if !movedFrom.isEmpty { endEarlierConnections(of: session, movedFrom) }
            return session.answer(ReplyCoding.encode(reply, number: number))
        case (.statistics, .joined), (.statistics, .observing):
            guard let domain = reader.take(UInt32.self), let client = reader.take(UInt32.self),
                reader.left == 0
            else { return false }
            return session.answer(figures(fromDomain: domain, fromClient: client).encoded())
        case (.goodbye, .joined) where reader.left == 0:
            session.end()
            return true
        default: return false
        }
    }

    /// Clients as others know them: by their processes, 0 where one has no number here.
    private func nameProcesses(of mappers: inout [FrameMapper], _ domain: BrokerDomain) {
        for index in mappers.indices {
            let owner = sessions.first { $0.domain === domain && $0.name.value == mappers[index].client }
            mappers[index].client = UInt32(clamping: owner?.process ?? 0)
        }
    }

    /// The process maps nothing any more of what it learned over these connections, which are closed. Should that be a lie, its
    /// own guest sees other content of its domain, which the process can read in any case. Nobody can lie about another's
    /// connection: its token was given to that one, and the process is another.
    private func endEarlierConnections(of session: Session, _ tokens: [SessionToken]) {
        for earlier in sessions
        where earlier !== session && earlier.identity == session.identity
            && (earlier.state == .silent || earlier.state == .joined)
        {
            // Of one that is open still, the end has not been heard yet.
            if let token = earlier.token, tokens.contains(token) { earlier.end() }
        }
    }

    // MARK: joining

    private func welcome(
        _ reader: inout WireReader, _ staging: consuming OwnedDescriptor?, _ session: Session
    ) -> Bool {
        guard reader.take(UInt32.self) == BrokerProtocol.magic, let version = reader.take(UInt16.self) else {
            return false
        }
        guard version == BrokerProtocol.version else {
            return refuse(
                session, .version, "the broker speaks version \(BrokerProtocol.version), not \(version)")
        }
        guard let hello = Hello(&reader) else { return false }
        guard let staging, Self.isStaging(staging) else {
            return refuse(
                session, .staging, "a memory file of a megabyte, sealed against shrinking, must come along")
        }
        if !hello.domain.isEmpty, !BrokerProtocol.isName(hello.domain) {
            return refuse(session, .name, "a domain's name has 1 to 64 letters, digits or ._-: in it")
        }
        let peer: Peer
        do throws(Peer.Unknown) { peer = try session.identify(limits.ability) } catch {
            return refuse(session, .identity, "the broker cannot tell which process a guest is: \(error)")
        }
        var places = ClientPlaces<Session.Owner>(
            places: limits.clients, placesOfProcess: limits.clientsOfProcess)
        for member in sessions where member.state == .joined || member.state == .silent {
            places.count(member.owner, isOpen: member.state == .joined)
        }
        if let reason = places.refusal(of: peer.identity) {
            let identity = peer.identity
            offers?.owe(identity, peer.onlyHandle())
            return refuse(session, .full, reason)
        }
        do throws(LinuxError) {
            let token = try SessionToken.random()
            let domain = try domain(named: hello.domain)
            guard domain.core.join(session.name, pageCount: Int(hello.pageCount)) else {
                return refuse(session, .pages, "a guest has between 1 page and 256 GiB")
            }
            // Its process is known from here on, and need not be the one that connected.
            forget(session)
            session.join(domain, pageCount: hello.pageCount, staging: staging, peer, token)
            remember(session)
            hadClient = true
            let store = try domain.backing.readOnlyDescriptor()
            let welcome = Welcome(
                epoch: domain.epoch, token: token, secret: domain.secret,
                batchLimit: UInt32(FrameStoreCore.batchLimit), domain: domain.name)
            // The kernel holds the file from here on; ours closes with this function.
            let isSent = session.answer(welcome.encoded(), passing: store.number)
            withExtendedLifetime(store) {}
            return isSent
        } catch { return refuse(session, .full, "\(error)") }
    }

    func refuse(_ session: Session, _ reason: RefusalReason, _ text: String) -> Bool {
        var writer = WireWriter(.refusal)
        writer.put(reason.rawValue)
        writer.put(BrokerProtocol.version)
        writer.put(text)
        _ = session.answer(writer.bytes)
        return false
    }

    /// Only memory files have seals, and reading one never waits for somebody, as it would with a pipe or with FUSE.
    private static func isStaging(_ file: borrowing OwnedDescriptor) -> Bool {
        do throws(LinuxError) {
            let size = try file.fileSize()
            return try file.seals().contains(.shrink) && size >= UInt64(StagingArea.slots) * 4096
        } catch { return false }
    }

    private func domain(named name: String) throws(LinuxError) -> BrokerDomain {
        if let domain = domains[name] { return domain }
        var unique = name
        if name.isEmpty {
            unique = "\(BrokerProtocol.privatePrefix)\(nextPrivate)"
            nextPrivate += 1
        }
        let domain = try BrokerDomain(name: unique)
        domains[unique] = domain
        return domain
    }

    // MARK: patience and cleaning up

    private func checkPatience() {
        let now = monotonicNanoseconds()
        nextCheck = now + 250_000_000
        func isOver(_ since: UInt64, _ milliseconds: Int) -> Bool {
            now > since && now - since > UInt64(milliseconds) * 1_000_000
        }
        for session in sessions {
            if session.state == .greeting, isOver(session.since, limits.greeting) { session.close() }
            if session.state == .observing, isOver(session.since, limits.unread) { session.close() }
            if session.hasUnsent, isOver(session.since, limits.unread) { session.close() }
        }
        offers?.settle(atMost: limits.strangers / 2) { identity in
            sessions.contains { $0.state == .joined && $0.identity == identity }
        }
        for domain in domains.values {
            let quiet = domain.core.clientsHoldingBack()
            guard !quiet.isEmpty else { continue }
            for session in sessions where session.domain === domain && quiet.contains(session.name) {
                guard session.state == .joined, let since = session.quietSince else { continue }
                if isOver(since, limits.quiet) { session.close() }
            }
        }
    }

    private func sweep() {
        if let offers {
            for session in sessions where session.isOwedConnection { session.claimConnection(from: offers) }
        }
        if sessions.contains(where: { $0.state == .gone }) {
            for session in sessions where session.state == .gone {
                forget(session)
                board.remove(session.number)
            }
            sessions.removeAll { $0.state == .gone }
        }
        // Dictionaries keep their order, so the first would always be first: each gets its share.
        let busy = domains.values.filter { $0.core.hasWork }
        for domain in busy { domain.core.sweep(limit: max(16, limits.sweepPerTurn / busy.count)) }
        for (name, domain) in domains where domain.isOver { domains[name] = nil }
    }

    // MARK: statistics

    private func figures(fromDomain: UInt32, fromClient: UInt32) -> FiguresPart {
        let members = sessions.filter { $0.state == .joined || $0.state == .silent }
        let sorted = domains.values.sorted { $0.name < $1.name }
        var part = FiguresPart()
        part.domainCount = UInt32(sorted.count)
        part.clientCount = UInt32(members.count)
        part.figures.hasOwnCgroup = hasOwnCgroup()
        part.figures.processNamespace = ProcessNamespace.current
        part.figures.domains = sorted.dropFirst(Int(fromDomain)).prefix(FiguresPart.limit).map { domain in
            var figures = BrokerFigures.Domain()
            figures.name = domain.name
            figures.epoch = domain.epoch
            figures.store = domain.core.statistics
            figures.allocatedBytes = domain.backing.allocatedBytes()
            for session in members where session.domain === domain && session.state == .silent {
                figures.orphanBytes += UInt64(domain.core.leases(of: session.name) ?? 0) * 4096
            }
            return figures
        }
        part.figures.clients = members.dropFirst(Int(fromClient)).prefix(FiguresPart.limit).map { session in
            var figures = BrokerFigures.Client()
            figures.process = session.process
            figures.domain = session.domain?.name ?? ""
            figures.pageCount = session.pageCount
            figures.references = UInt32(clamping: session.domain?.core.leases(of: session.name) ?? 0)
            figures.isSilent = session.state == .silent
            return figures
        }
        return part
    }
}
