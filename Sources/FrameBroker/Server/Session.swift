internal import FrameStore
internal import CLinux
internal import LinuxHost
internal import FrameIndex

/// A connection, and what remains of it when it closed: a process that may still map frames.
///
///   greeting --hello--> joined --closed, or silenced--> silent --process ended--> gone
///      |                   +--------------- goodbye, process ended --------------> gone
///      +--observe--> observing --closed--> gone
final class Session {
    enum State { case greeting, observing, joined, silent, gone }

    let number: UInt32
    private(set) var socket: PacketSocket?
    /// Who sent its first message, until it joined: who connected may have handed the socket on.
    private var sender: PacketSocket.Sender?
    /// Which process joined; its number for people, 0 when it has none here; what tells that it ended; what only it knows.
    private(set) var identity: PeerIdentity?
    private(set) var process: Int32 = 0
    private var processHandle: ProcessHandle?
    /// Which process connected; nil: nothing proves it.
    private let connector: PeerIdentity?
    private let ability: Peer.Ability
    private(set) var token: SessionToken?
    private var staging: OwnedDescriptor?
    /// A staged page; the same memory for all of a batch, as nobody keeps them.
    private var page: [UInt8] = []
    private(set) var domain: BrokerDomain?
    private(set) var pageCount: UInt32 = 0
    private(set) var state = State.greeting
    /// An answer that the client does not take. Until it does, it is not listened to: it can never have two.
    private var unsent: [UInt8]?
    /// It lost its connection, and did not give it up.
    private(set) var isOwedConnection = false
    /// When it was told that it should speak; nil: it has spoken since.
    private(set) var quietSince: UInt64?
    /// When it last sent a batch, or joined.
    private(set) var spoke: UInt64 = 0
    /// When the connection began, or the answer started to wait, or the client last sent anything.
    private(set) var since: UInt64

    init(number: UInt32, socket: consuming PacketSocket, _ ability: Peer.Ability) throws(LinuxError) {
        let peer = try socket.peer()
        guard UserNumbers.current.isOurs(peer.user) else {
            throw LinuxError(
                operation: "SO_PEERCRED", code: EPERM, subject: UserNumbers.current.words(peer.user))
        }
        try socket.tellSenders(true)
        do throws(Peer.Unknown) { connector = try socket.peerIdentity(ability).identity } catch {
            connector = nil
        }
        self.number = number
        self.ability = ability
        self.socket = consume socket
        since = monotonicNanoseconds()
    }

    /// Becomes readable when the process ends; -1 before it joined.
    var processEnd: Int32 {
        guard let number = processHandle?.descriptor.number else { return -1 }
        return number
    }
    var name: StoreClient { StoreClient(number) }
    /// The process to which its places, its time and its memory are counted.
    ///
    /// Of a stranger it is the process that connected; nil: all whom nothing proves, together.
    typealias Owner = PeerIdentity?
    var owner: Owner { identity ?? connector }
    /// The most that the process held at a time, bytes; nil when that is not to be known.
    func peakBytes() -> UInt64? { ProcessPeak.bytes(of: process) }
    var isStranger: Bool { state == .greeting || state == .observing }
    var hasUnsent: Bool { unsent != nil }

    /// Something that it said waits to be heard.
    var hasInput: Bool { socket?.waitForInput(until: 0) ?? false }

    /// What to wait for on the socket; nil when there is none.
    var interest: (descriptor: Int32, events: Int16)? {
        guard let number = socket?.descriptor.number else { return nil }
        return (number, Int16(unsent == nil ? POLLIN : POLLOUT))
    }

    func receive(into buffer: inout [UInt8]) -> PacketSocket.Received {
        if state == .greeting, sender == nil { return receiveFirst(into: &buffer) }
        guard let received = socket?.receive(into: &buffer) else { return .closed }
        since = monotonicNanoseconds()
        return received
    }

    private func receiveFirst(into buffer: inout [UInt8]) -> PacketSocket.Received {
        guard let (received, from) = socket?.receiveFrom(into: &buffer) else { return .closed }
        guard case .packet = received else { return received }
        since = monotonicNanoseconds()
        sender = from
        do throws(LinuxError) { try socket?.tellSenders(false) } catch { return .closed }
        return received
    }

    /// The process that sent the greeting: it will map the frames.
    func identify(_ ability: Peer.Ability) throws(Peer.Unknown) -> Peer {
        guard let sender, UserNumbers.current.isOurs(sender.user) else {
            throw .system(
                LinuxError(
                    operation: "SCM_CREDENTIALS", code: EPERM,
                    subject: UserNumbers.current.words(sender?.user ?? .max)))
        }
        return try sender.peer(ability) { socket?.stands() ?? false }
    }

    /// Has its process offered another connection: that which joined, or, of a stranger, that which connected.
    func claimConnection(from offers: OfferBook) {
        isOwedConnection = false
        do {
            if let identity, let process = try processHandle?.copy() {
                offers.owe(identity, process)
            } else if let peer = try socket?.peerIdentity(ability) {
                let identity = peer.identity
                offers.owe(identity, peer.onlyHandle())
            }
        } catch { return }
    }

    /// Sends an answer, or keeps it until the client reads.
    /// - Returns: false when the connection is broken.
    func answer(_ bytes: [UInt8], passing descriptor: Int32 = -1) -> Bool {
        switch socket?.send(bytes, passing: descriptor) {
        case .done: return true
        case .full where descriptor < 0:
            unsent = bytes
            return true
        default: return false
        }
    }

    func flush() -> Bool {
        guard let bytes = unsent else { return true }
        unsent = nil
        since = monotonicNanoseconds()
        guard answer(bytes) else { return false }
        if quietSince != nil { sendNotice() }
        return true
    }

    /// Whether a notice may be sent: one at a time.
    var mayBeNoticed: Bool { state == .joined && quietSince == nil }

    /// Tells the client to speak, and counts from now on how long it does not. One that does not read its answers is told when
    /// it does, if there is room then.
    func notify() {
        quietSince = monotonicNanoseconds()
        sendNotice()
    }

    /// If there is no room for it, the client's next batch comes without.
    private func sendNotice() {
        if unsent == nil { _ = socket?.send([MessageKind.notice.rawValue]) }
    }

    /// A batch came: whatever the notice was for, its answer tells.
    func hear() {
        quietSince = nil
        spoke = monotonicNanoseconds()
    }

    func observe() { state = .observing }

    func join(
        _ domain: BrokerDomain, pageCount: UInt32, staging: consuming OwnedDescriptor, _ peer: consuming Peer,
        _ token: SessionToken
    ) {
        state = .joined
        sender = nil
        identity = peer.identity
        process = peer.number ?? 0
        processHandle = peer.onlyHandle()
        self.token = token
        spoke = monotonicNanoseconds()
        self.domain = domain
        self.pageCount = pageCount
        self.staging = consume staging
        page = [UInt8](repeating: 0, count: 4096)
        domain.members += 1
    }

    /// The bytes of a staging slot, copied: the client may change them, or take them away, at any time.
    func stagedPage(_ slot: UInt32) -> [UInt8]? {
        guard slot < StagingArea.slots, let number = staging?.number else { return nil }
        do throws(LinuxError) {
            let count = try OwnedDescriptor.readBytes(of: number, into: &page, at: UInt64(slot) * 4096)
            return count == page.count ? page : nil
        } catch { return nil }
    }

    /// The connection is over; a joined client's references stay.
    func close() {
        socket = nil
        staging = nil
        page = []
        unsent = nil
        if state == .joined {
            state = .silent
            isOwedConnection = true
            domain?.core.silence(name)
            // It cannot map a frame of which it has no reference.
            if domain?.core.leases(of: name) ?? 0 == 0 { end() }
        } else if state != .silent {
            state = .gone
        }
    }

    /// The process is over, or holds nothing any more.
    func end() {
        let wasOwed = isOwedConnection
        close()
        isOwedConnection = wasOwed
        guard state == .silent else { return }
        state = .gone
        domain?.core.leave(name)
        domain?.members -= 1
    }
}
