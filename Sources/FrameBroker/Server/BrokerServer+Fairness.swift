internal import CLinux
internal import LinuxHost
internal import FrameStore

// What keeps one process from taking what others need: the broker's time, and its places.
extension BrokerServer {
    /// Listens to who has something to say, for as long as a turn may take.
    func listen(_ ready: [Int16]) {
        var events: [UInt32: (session: Session, events: Int16)] = [:]
        var waiting: [TurnOrder<Session.Owner, ObjectIdentifier>.Waiting] = []
        for (index, session) in sessions.enumerated() where ready[1 + index * 2] != 0 {
            events[session.number] = (session, ready[1 + index * 2])
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

    /// Closes another stranger's connection when there are too many.
    func makePlace(for newcomer: Session) {
        typealias Places = StrangerPlaces<Session.Owner>
        let strangers = sessions.filter(\.isStranger)
        // Who is known is looked up only when it matters.
        guard strangers.count >= min(limits.strangers, limits.strangersOfProcess) else { return }
        func isKnown(_ session: Session) -> Bool {
            accounts[session.owner]?.sessions.contains { $0.state == .joined || $0.state == .silent } ?? false
        }
        func describe(_ session: Session) -> Places.Stranger {
            .init(
                number: session.number, process: session.owner, isObserver: session.state == .observing,
                isKnown: isKnown(session))
        }
        let places = Places(places: limits.strangers, placesOfProcess: limits.strangersOfProcess)
        guard let victim = places.victim(for: describe(newcomer), among: strangers.map(describe)) else {
            return
        }
        for session in sessions where session.number == victim {
            _ = refuse(session, .busy, "others wait for a connection: try again")
            session.close()
        }
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
