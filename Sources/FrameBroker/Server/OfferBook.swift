internal import CLinux
internal import FrameStore
internal import LinuxHost
internal import VMMProtocol

/// Whom this broker owes a connection: a confined guest cannot connect by itself, so one that lost the broker, or found it full, is
/// offered a connection over its control socket, again and again until it has joined, says that it wants none, or has ended.
///
/// ```
///  owed --found at a control socket--> offered --answers--> owed, for longer each time; joined, ended or refused --> out of the book
/// ```
/// Never waits for a guest: one that is stopped has one offer, which it answers when it goes on, and is then offered a newer one. In
/// order of time: who is owed is looked for among those that listen at control sockets, by what the kernel says of them, once.
final class OfferBook {
    private static let limit = 1024
    /// Between two offers to one guest, nanoseconds: doubled by each.
    private static let pauses: ClosedRange<UInt64> = 250_000_000...5_000_000_000

    private final class Debt {
        let process: ProcessHandle
        var next: UInt64
        private var pause = OfferBook.pauses.lowerBound
        /// The control socket at which it was found to listen.
        var path: String?
        /// Over which the offer went that has no answer yet.
        var control: PacketSocket?
        init(_ process: consuming ProcessHandle, _ next: UInt64, path: String? = nil) {
            self.process = process
            self.next = next
            self.path = path
        }

        func postpone(_ now: UInt64) {
            next = now + pause
            pause = min(pause * 2, OfferBook.pauses.upperBound)
        }
    }

    private let files: BrokerFiles
    private let ability: Peer.Ability
    private var debts: [PeerIdentity: Debt] = [:]
    /// Control sockets at which some guest may listen to whom a connection is owed: at its door there is no room now. And when to try
    /// again.
    private var fullDoors: [String] = []
    private var nextTry: UInt64 = 0
    private var buffer = [UInt8](repeating: 0, count: 4096)

    init(_ files: BrokerFiles, _ ability: Peer.Ability) { (self.files, self.ability) = (files, ability) }

    var isEmpty: Bool { debts.isEmpty && fullDoors.isEmpty }

    /// The process lost its connection, or was declined, and lives.
    func owe(_ identity: PeerIdentity, _ process: consuming ProcessHandle) {
        guard debts[identity] == nil, debts.count < Self.limit else { return }
        debts[identity] = Debt(process, monotonicNanoseconds() + Self.pauses.lowerBound)
    }

    /// Every guest of the state directory: another broker than this one may have been theirs.
    func oweEverybody() { owe(toThoseAt: files.paths(inFolder: StateFolder.control), monotonicNanoseconds()) }

    private func owe(toThoseAt paths: [String], _ now: UInt64) {
        nextTry = now + Self.pauses.upperBound
        fullDoors = []
        for path in paths where debts.count < Self.limit {
            do {
                let peer = try PacketSocket.connect(to: path).peerIdentity(ability)
                let identity = peer.identity
                if debts[identity] == nil { debts[identity] = Debt(peer.onlyHandle(), now, path: path) }
            } catch let error as LinuxError { if error.code == EAGAIN { fullDoors.append(path) } } catch {}
        }
    }

    /// Goes on with all that is owed; often.
    /// - Parameter most: offers at a time. Those to whom more is owed have their turn next time: a connection that is made before its
    ///   guest can greet is one among the strangers, and gives way to the next.
    func settle(atMost most: Int, isJoined: (PeerIdentity) -> Bool) {
        guard !isEmpty else { return }
        let now = monotonicNanoseconds()
        if !fullDoors.isEmpty, now >= nextTry { owe(toThoseAt: fullDoors, now) }
        for (identity, debt) in debts {
            if debt.process.hasEnded || isJoined(identity) || !hear(debt) { debts[identity] = nil }
        }
        let waiting = debts.filter { $0.value.control == nil && $0.value.next <= now }
        let due = waiting.sorted { $0.value.next < $1.value.next }.prefix(most)
        if due.contains(where: { $0.value.path == nil }) { look(for: due.map(\.key), now) }
        for (identity, debt) in due where debt.path != nil { offer(to: identity, debt, now) }
    }

    /// - Returns: false when it wants no connection.
    private func hear(_ debt: Debt) -> Bool {
        switch debt.control?.receive(into: &buffer) {
        case nil, .nothing: return true
        case .packet(let bytes, let passed):
            if passed >= 0 { _ = OwnedDescriptor(adopting: passed) }
            debt.control = nil
            return ControlAnswer(String(decoding: bytes, as: UTF8.self)) != .sharesNothing
        case .closed, .odd:
            debt.control = nil
            return true
        }
    }

    /// Finds out at which control sockets they listen. Each look is a connection at the door of everybody else, too.
    private func look(for due: [PeerIdentity], _ now: UInt64) {
        var isFull = false
        let known = Set(debts.values.compactMap(\.path))
        for path in files.paths(inFolder: StateFolder.control) where !known.contains(path) {
            do throws(LinuxError) {
                let control = try PacketSocket.connect(to: path)
                if let peer = try? control.peerIdentity(ability) { debts[peer.identity]?.path = path }
            } catch { if error.code == EAGAIN { isFull = true } }
        }
        for identity in due where debts[identity]?.path == nil {
            // It listens nowhere: it is no guest, or wants no commands. Unless it is one at whose door there is no room.
            if isFull { debts[identity]?.postpone(now) } else { debts[identity] = nil }
        }
    }

    private func offer(to identity: PeerIdentity, _ debt: Debt, _ now: UInt64) {
        guard let path = debt.path else { return }
        debt.postpone(now)
        do {
            let control = try PacketSocket.connect(to: path)
            guard try control.peerIdentity(ability).identity == identity else { return debt.path = nil }
            let connection = try PacketSocket.connect(to: files.socket)
            let sent = control.send(
                Array(ControlCommand.broker.text.utf8), passing: connection.descriptor.number)
            if case .done = sent { debt.control = consume control }
        } catch let error as LinuxError {
            if [ENOENT, ECONNREFUSED].contains(error.code) { debt.path = nil }
        } catch {}
    }
}
