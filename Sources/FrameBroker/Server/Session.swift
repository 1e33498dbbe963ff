internal import CLinux
internal import GuestMemory
internal import Sharing

/// A connection, and what remains of it when it closed: a process that may still map frames.
///
///   greeting --hello--> joined --closed, or silenced--> silent --process ended--> gone
///      |                   +--------------- goodbye, process ended --------------> gone
///      +--observe--> observing --closed--> gone
final class Session {
    enum State { case greeting, observing, joined, silent, gone }

    let number: UInt32
    let process: Int32
    private(set) var socket: PacketSocket?
    let processDescriptor: OwnedDescriptor
    private var staging: OwnedDescriptor?
    /// A staged page; the same memory for all of a batch, as nobody keeps them.
    private var page: [UInt8] = []
    private(set) var domain: BrokerDomain?
    private(set) var pageCount: UInt32 = 0
    private(set) var state = State.greeting
    /// An answer that the client does not take. Until it does, it is not listened to: it can never have two.
    private var unsent: [UInt8]?
    /// When it was told that it should speak; nil: it has spoken since.
    private(set) var quietSince: UInt64?
    /// When it last sent a batch, or joined.
    private(set) var spoke: UInt64 = 0
    /// When the connection began, or the answer started to wait, or the client last sent anything.
    private(set) var since: UInt64

    init(number: UInt32, socket: consuming PacketSocket) throws(LinuxError) {
        let peer = try socket.peer()
        guard peer.user == geteuid() else {
            throw LinuxError(operation: "SO_PEERCRED", code: EPERM, subject: "user \(peer.user)")
        }
        self.number = number
        process = peer.process
        processDescriptor = try socket.peerProcess(peer.process)
        self.socket = consume socket
        since = monotonicNanoseconds()
    }

    var name: StoreClient { StoreClient(number) }
    /// The process to which its places, its time and its memory are counted.
    typealias Owner = Int32
    var owner: Owner { process }
    /// The most that the process held at a time, bytes; nil when that is not to be known.
    func peakBytes() -> UInt64? { ProcessPeak.bytes(of: process) }
    var isStranger: Bool { state == .greeting || state == .observing }
    var hasUnsent: Bool { unsent != nil }

    /// What to wait for on the socket; nil when there is none.
    var interest: (descriptor: Int32, events: Int16)? {
        guard let number = socket?.descriptor.number else { return nil }
        return (number, Int16(unsent == nil ? POLLIN : POLLOUT))
    }

    func receive(into buffer: inout [UInt8]) -> PacketSocket.Received {
        guard let received = socket?.receive(into: &buffer) else { return .closed }
        since = monotonicNanoseconds()
        return received
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

    func join(_ domain: BrokerDomain, pageCount: UInt32, staging: consuming OwnedDescriptor) {
        state = .joined
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
            domain?.core.silence(name)
        } else if state != .silent {
            state = .gone
        }
    }

    /// The process is over, or holds nothing any more.
    func end() {
        close()
        guard state == .silent else { return }
        state = .gone
        domain?.core.leave(name)
        domain?.members -= 1
    }
}
