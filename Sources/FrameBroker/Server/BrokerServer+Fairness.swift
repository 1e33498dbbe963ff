internal import CLinux
internal import LinuxHost
internal import FrameStore

// What keeps one process from taking what others need: the broker's time, and its places.
extension BrokerServer {
    /// Listens to who has something to say, for as long as a turn may take.
    func listen(_ ready: [(session: Session, events: Int16)]) {
        var events: [UInt32: (session: Session, events: Int16)] = [:]
        var waiting: [TurnOrder<Session.Owner, ObjectIdentifier>.Waiting] = []
        for found in ready {
            let session = found.session
            events[session.number] = found
            waiting.append(
                .init(
                    process: session.owner, client: session.number,
                    domain: session.domain.map { ObjectIdentifier($0) }))
        }
        guard !waiting.isEmpty else { return }
        order.begin(waiting)
        var before = threadCPUNanoseconds()
        let end = before + UInt64(limits.turn) * 1000
        while before < end, let next = order.next() {
            if let found = events[next.client] { serve(found.session, found.events) }
            let now = threadCPUNanoseconds()
            order.spend(now - before)
            before = now
        }
    }

    /// Closes another stranger's connection when there are too many; first it is heard, if it has said something.
    func makePlace(for newcomer: Session) {
        while let victim = victim(for: newcomer) {
            if victim.hasInput {
                serve(victim, Int16(POLLIN))
                if !victim.isStranger { continue }
            }
            if let offers { victim.claimConnection(from: offers) }
            _ = refuse(victim, .busy, "others wait for a connection: try again")
            return victim.close()
        }
    }

    private func victim(for newcomer: Session) -> Session? {
        typealias Places = StrangerPlaces<Session.Owner>
        let strangers = sessions.filter(\.isStranger)
        // Who is known is looked up only when it matters.
        guard strangers.count >= min(limits.strangers, limits.strangersOfProcess) else { return nil }
        func isKnown(_ session: Session) -> Bool {
            accounts[session.owner]?.sessions.contains { $0.state == .joined || $0.state == .silent } ?? false
        }
        func describe(_ session: Session) -> Places.Stranger {
            .init(
                number: session.number, process: session.owner, isObserver: session.state == .observing,
                isKnown: isKnown(session))
        }
        // Those that this process offered are of as many guests.
        let isOwn = ownProcess != nil && newcomer.owner == ownProcess
        let places = Places(
            places: limits.strangers, placesOfProcess: isOwn ? limits.strangers : limits.strangersOfProcess)
        let number = places.victim(for: describe(newcomer), among: strangers.map(describe))
        return strangers.first { $0.number == number }
    }

    func remember(_ session: Session) {
        let account = accounts[session.owner] ?? ProcessAccount()
        accounts[session.owner] = account
        account.add(session)
    }

    func forget(_ session: Session) {
        order.forget(client: session.number, of: session.owner)
        accounts[session.owner]?.remove(session)
        if accounts[session.owner]?.sessions.isEmpty == true { accounts[session.owner] = nil }
    }
}
