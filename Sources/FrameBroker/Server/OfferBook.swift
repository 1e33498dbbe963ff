internal import CLinux
internal import FrameStore
internal import LinuxHost
internal import VMMProtocol

/// Whom this broker owes a connection: a confined guest cannot connect by itself, so one that lost the broker, or found it full, is
/// offered a connection over its control socket, again and again until it has joined, says that it wants none, or has ended.
///
/// ```
///  owed --offered--> asked --answers--> owed, for longer each time; joined, ended or refused --> out of the book
///                      \---no answer for long---^
/// ```
/// Never waits for a guest. In order of time: who is owed is looked for among those that listen at control sockets, by what the kernel
/// says of them.
final class OfferBook {
    private static let limit = 1024
    /// Between two offers to one guest, nanoseconds: doubled by each.
    private static let pauses: ClosedRange<UInt64> = 250_000_000...5_000_000_000
    /// How long a guest may take to answer before it is offered a newer connection, nanoseconds.
    private static let patience: UInt64 = 30_000_000_000

    private final class Debt {
        let process: ProcessHandle
        var next: UInt64
        var pause = OfferBook.pauses.lowerBound
        /// Over which the offer went that has no answer yet, and when.
        var control: PacketSocket?
        var asked: UInt64 = 0
        init(_ process: consuming ProcessHandle, _ next: UInt64) {
            self.process = process
            self.next = next
        }

        func putOff(_ now: UInt64) {
            next = now + pause
            pause = min(pause * 2, OfferBook.pauses.upperBound)
        }
    }

    private let files: BrokerFiles
    private let ability: Peer.Ability
    private var debts: [PeerIdentity: Debt] = [:]
    private var buffer = [UInt8](repeating: 0, count: 4096)

    init(_ files: BrokerFiles, _ ability: Peer.Ability) { (self.files, self.ability) = (files, ability) }

    var isEmpty: Bool { debts.isEmpty }

    /// The process lost its connection, or was declined, and lives.
    func owe(_ identity: PeerIdentity, _ process: consuming ProcessHandle) {
        guard debts[identity] == nil, debts.count < Self.limit else { return }
        debts[identity] = Debt(process, monotonicNanoseconds() + Self.pauses.lowerBound)
    }

    /// Every guest of the state directory: another broker than this one may have been theirs.
    func oweEverybody() { offer { _, _ in true } }

    /// Goes on with all that is owed; often.
    func settle(isJoined: (PeerIdentity) -> Bool) {
        guard !debts.isEmpty else { return }
        let now = monotonicNanoseconds()
        for (identity, debt) in debts {
            if debt.process.hasEnded || isJoined(identity) || !hear(debt, now) { debts[identity] = nil }
        }
        let due = Set(debts.filter { $0.value.control == nil && $0.value.next <= now }.keys)
        guard !due.isEmpty else { return }
        let (found, isComplete) = offer { identity, _ in due.contains(identity) }
        for identity in due.subtracting(found) {
            if isComplete {
                // It listens nowhere: it is no guest, or wants no commands.
                debts[identity] = nil
            } else {
                debts[identity]?.putOff(now)
            }
        }
    }

    /// - Returns: false when it wants no connection.
    private func hear(_ debt: Debt, _ now: UInt64) -> Bool {
        switch debt.control?.receive(into: &buffer) {
        case nil: return true
        case .nothing:
            if now - debt.asked > Self.patience { debt.control = nil }
            return true
        case .packet(let bytes, let passed):
            if passed >= 0 { _ = OwnedDescriptor(adopting: passed) }
            debt.control = nil
            if case .refused = ControlAnswer(String(decoding: bytes, as: UTF8.self)) { return false }
            return true
        case .closed, .odd:
            debt.control = nil
            return true
        }
    }

    /// Offers a connection to those of the guests that listen that are wanted.
    /// - Returns: the wanted ones that listen; whether all who listen are known. (One whose door is full for the moment is not.)
    @discardableResult
    private func offer(_ isWanted: (PeerIdentity, String) -> Bool)
        -> (found: Set<PeerIdentity>, isComplete: Bool)
    {
        var found: Set<PeerIdentity> = []
        var isComplete = true
        let now = monotonicNanoseconds()
        for path in files.paths(inFolder: StateFolder.control) {
            let control: PacketSocket
            do throws(LinuxError) { control = try PacketSocket.connect(to: path) } catch {
                if ![ENOENT, ECONNREFUSED].contains(error.code) { isComplete = false }
                continue
            }
            do {
                let peer = try control.peerIdentity(ability)
                let identity = peer.identity
                guard isWanted(identity, path) else { continue }
                found.insert(identity)
                let debt: Debt
                if let known = debts[identity] { debt = known } else { debt = Debt(peer.onlyHandle(), now) }
                debts[identity] = debt
                debt.putOff(now)
                debt.asked = now
                let connection = try PacketSocket.connect(to: files.socket)
                let sent = control.send(
                    Array(ControlCommand.broker.text.utf8), passing: connection.descriptor.number)
                if case .done = sent { debt.control = consume control }
            } catch { continue }
        }
        return (found, isComplete)
    }
}
