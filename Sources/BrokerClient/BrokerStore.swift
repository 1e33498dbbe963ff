public import FrameStore
public import LinuxHost

internal import CLinux

/// A client's end of a store that a broker keeps. One thread uses it.
///
/// Once an exchange failed the connection is closed and every further one fails at once: what the broker knew is void.
/// Mappings of its frames stay good.
public final class BrokerStore: FrameStore {
    /// A reply to the largest batch fits.
    static let replyLimit = 48 << 10
    private var socket: PacketSocket?
    private var buffer = [UInt8](repeating: 0, count: BrokerStore.replyLimit)
    private var number: UInt32 = 0
    private let milliseconds: Int
    private let token: SessionToken
    private let history: SessionHistory
    /// A notice came that no answer has settled yet.
    private var isNoticed = false

    /// The domain's secret for ``PageHasher``.
    public let secret: [UInt8]
    /// Different for every store: frames of one mean nothing to another.
    public let epoch: UInt64
    /// The domain's name; the broker chose it if none was given.
    public let domain: String
    /// The store's file, for reading.
    public let storeDescriptor: OwnedDescriptor
    public let staging: StagingArea
    public let batchLimit: Int
    public var stagingSlots: Int { StagingArea.slots }

    /// Joins a domain.
    /// - Parameters:
    ///   - path: of the broker's socket.
    ///   - domain: nil for one of this guest alone.
    ///   - pageCount: pages of the guest.
    ///   - deadlineMilliseconds: how long any answer may take.
    ///   - greetingMilliseconds: how long the first one may take; nil: as any.
    ///   - history: what the guest knows of its earlier connections.
    public static func connect(
        path: String, domain: String?, pageCount: Int, deadlineMilliseconds: Int = 10_000,
        greetingMilliseconds: Int? = nil, history: SessionHistory = SessionHistory()
    ) throws(BrokerError) -> BrokerStore {
        let wait = greetingMilliseconds ?? deadlineMilliseconds
        return try connect(
            over: BrokerConnection(path: path, milliseconds: wait), domain: domain, pageCount: pageCount,
            deadlineMilliseconds: deadlineMilliseconds, greetingMilliseconds: wait, history: history)
    }

    /// Joins a domain over a connection that somebody handed on. The broker takes the process that calls this for the client.
    /// Parameters as of ``connect(path:domain:pageCount:deadlineMilliseconds:greetingMilliseconds:history:)``.
    public static func connect(
        over connection: consuming BrokerConnection, domain: String?, pageCount: Int,
        deadlineMilliseconds: Int = 10_000, greetingMilliseconds: Int? = nil,
        history: SessionHistory = SessionHistory()
    ) throws(BrokerError) -> BrokerStore {
        try BrokerGreeting(over: connection, domain: domain, pageCount: pageCount).answer(
            within: greetingMilliseconds ?? deadlineMilliseconds, deadlineMilliseconds: deadlineMilliseconds,
            history: history)
    }

    static func hello(_ domain: String?, _ pageCount: Int) throws(BrokerError) -> Hello {
        guard pageCount > 0, pageCount <= Int(FrameLocation.segmentSpan) else {
            throw .refused(.pages, "a guest has between 1 page and 256 GiB")
        }
        if let domain, !BrokerProtocol.isName(domain) {
            throw .refused(.name, "a domain's name has 1 to 64 letters, digits or ._-: in it")
        }
        return Hello(domain: domain ?? "", pageCount: UInt32(pageCount))
    }

    /// - Parameter answer: what the broker said to the greeting.
    init(
        _ link: consuming BrokerLink, _ answer: (message: [UInt8], passed: Int32), _ staging: StagingArea,
        _ milliseconds: Int, _ history: SessionHistory
    ) throws(BrokerError) {
        let (message, passed) = answer
        let store = passed >= 0 ? OwnedDescriptor(adopting: passed) : nil
        var reader = WireReader(message)
        switch reader.take(UInt8.self).flatMap({ MessageKind(rawValue: $0) }) {
        case .welcome:
            guard let welcome = Welcome(&reader), let store else { throw .malformed("its welcome") }
            self.milliseconds = milliseconds
            self.staging = staging
            self.history = history
            token = welcome.token
            history.begin(welcome.token)
            secret = welcome.secret
            epoch = welcome.epoch
            domain = welcome.domain
            storeDescriptor = store
            batchLimit = Int(welcome.batchLimit)
            socket = link.release()
        case .refusal: throw Self.refusal(&reader)
        default: throw .malformed("its greeting")
        }
    }

    /// After the kind.
    private static func refusal(_ reader: inout WireReader) -> BrokerError {
        let reason = reader.take(UInt8.self).flatMap { RefusalReason(rawValue: $0) }
        guard let reason, reader.take(UInt16.self) != nil, let text = reader.text() else {
            return .malformed("its refusal")
        }
        return .refused(reason, text)
    }

    public func exchange(_ batch: StoreBatch) throws(FrameStoreError) -> StoreReply {
        guard batch.count <= batchLimit, batch.publications.count <= stagingSlots else {
            preconditionFailure("a batch keeps to batchLimit and stagingSlots")
        }
        number &+= 1
        let earlier = batch.hasMovedOver ? history.earlier(than: token) : []
        let message = try call(BatchCoding.encode(batch, number: number, movedFrom: earlier))
        var reader = WireReader(message)
        guard reader.take(UInt8.self) == MessageKind.reply.rawValue,
            let (number, reply) = ReplyCoding.decode(&reader),
            number == self.number, reply.sightings.count == batch.sightings.count,
            reply.uniform.count == batch.uniform.count, reply.publications.count == batch.publications.count,
            reply.sharing.count == batch.questions.count
        else { throw lose("\(BrokerError.malformed("its reply"))") }
        history.end(earlier)
        // What came before the answer is settled by it.
        if batch.isEmpty { isNoticed = false }
        return reply
    }

    public func hasNotice() -> Bool {
        guard let open = socket.take() else { return true }
        while !isNoticed {
            switch open.receive(into: &buffer) {
            case .nothing:
                socket = consume open
                return false
            case .packet(let bytes, let passed):
                if passed >= 0 { _ = OwnedDescriptor(adopting: passed) }
                // Nothing else comes unasked.
                guard Self.isNotice(bytes) else { return true }
                isNoticed = true
            case .closed, .odd: return true
            }
        }
        socket = consume open
        return true
    }

    private static func isNotice(_ message: [UInt8]) -> Bool { message == [MessageKind.notice.rawValue] }

    /// Gives back everything at once, without waiting for this process's end: no mapping of a frame may be left.
    public func goodbye() {
        if socket != nil { _ = socket?.send(WireWriter(.goodbye).bytes) }
        socket = nil
    }

    /// Closes the connection; the broker keeps the references until this process ends.
    public func disconnect() { socket = nil }

    private func call(_ request: [UInt8]) throws(FrameStoreError) -> [UInt8] {
        guard let open = socket.take() else { throw .lost("the connection was lost before") }
        let link = BrokerLink(open, milliseconds)
        do throws(BrokerError) {
            try link.send(request)
            while true {
                let (message, passed) = try link.receive(into: &buffer)
                if passed >= 0 { _ = OwnedDescriptor(adopting: passed) }
                if Self.isNotice(message) {
                    isNoticed = true
                    continue
                }
                socket = link.release()
                return message
            }
        } catch { throw lose("\(error)") }
    }

    private func lose(_ reason: String) -> FrameStoreError {
        socket = nil
        return .lost(reason)
    }

    /// Tells the broker to end; its clients keep what they map.
    public static func endBroker(path: String) throws(BrokerError) {
        do throws(LinuxError) {
            let socket = try PacketSocket.connect(to: path)
            let peer: Peer
            do throws(Peer.Unknown) { peer = try socket.peerIdentity() } catch {
                throw LinuxError(operation: "SO_PEERPIDFD", code: ESRCH, subject: "\(error)")
            }
            try peer.handle.send(SIGTERM)
        } catch { throw .system(error) }
    }

    /// The process that listens at the socket, the supervisor; 0 when it has no number in this PID namespace.
    public static func brokerProcess(path: String) throws(BrokerError) -> Int32 {
        try BrokerLink(path, 2000).peer()
    }

    /// The numbers of a broker.
    /// - Throws: ``BrokerError/noBroker(_:)`` when none runs; ``BrokerError/busy(_:)`` when one runs, but gives no answer in time.
    public static func statistics(path: String, deadlineMilliseconds: Int = 2000) throws(BrokerError)
        -> BrokerFigures
    {
        let end = monotonicNanoseconds() + UInt64(max(0, deadlineMilliseconds)) * 1_000_000
        while true {
            let now = monotonicNanoseconds()
            do throws(BrokerError) {
                return try figures(path, Int(now < end ? (end - now) / 1_000_000 : 0))
            } catch {
                switch error {
                case .overdue, .busy: throw .busy(path)
                // It had to give way to others.
                case .refused(.busy, _), .closed: if monotonicNanoseconds() >= end { throw .busy(path) }
                default: throw error
                }
            }
            Pause.sleep(nanoseconds: 20_000_000)
        }
    }

    private static func figures(_ path: String, _ milliseconds: Int) throws(BrokerError) -> BrokerFigures {
        let link = try BrokerLink(path, milliseconds)
        try link.tellSenders()
        try link.send(WireWriter(.observe).bytes)
        var buffer = [UInt8](repeating: 0, count: BrokerProtocol.messageLimit)
        var figures = BrokerFigures()
        figures.supervisor = link.listener()
        while true {
            let request = FiguresPart.request(
                firstDomain: UInt32(figures.domains.count), firstClient: UInt32(figures.clients.count))
            try link.send(request)
            let (message, sender) = try link.receiveFrom(into: &buffer)
            figures.worker = sender
            var reader = WireReader(message)
            let kind = reader.take(UInt8.self).flatMap { MessageKind(rawValue: $0) }
            if kind == .refusal { throw Self.refusal(&reader) }
            guard kind == .figures, let part = FiguresPart(&reader) else {
                throw .malformed("its statistics")
            }
            figures.hasOwnCgroup = part.figures.hasOwnCgroup
            figures.processNamespace = part.figures.processNamespace
            figures.domains += part.figures.domains
            figures.clients += part.figures.clients
            let isComplete =
                figures.domains.count >= Int(part.domainCount)
                && figures.clients.count >= Int(part.clientCount)
            if isComplete || (part.figures.domains.isEmpty && part.figures.clients.isEmpty) { return figures }
        }
    }
}

/// A connection to a broker, with a deadline for everything.
struct BrokerLink: ~Copyable {
    private let socket: PacketSocket
    private let milliseconds: Int
    private let deadline: UInt64

    init(_ socket: consuming PacketSocket, _ milliseconds: Int) {
        self.socket = socket
        self.milliseconds = milliseconds
        deadline = monotonicNanoseconds() + UInt64(max(0, milliseconds)) * 1_000_000
    }

    init(_ path: String, _ milliseconds: Int) throws(BrokerError) {
        let deadline = monotonicNanoseconds() + UInt64(max(0, milliseconds)) * 1_000_000
        // More wait at the door than fit: the broker lets many in at a time.
        while true {
            if let socket = try Self.open(path) {
                self.socket = socket
                self.milliseconds = milliseconds
                self.deadline = deadline
                return
            }
            guard monotonicNanoseconds() < deadline else { throw .busy(path) }
            Pause.sleep(nanoseconds: 1_000_000)
        }
    }

    /// - Returns: nil when there is no room at the door.
    private static func open(_ path: String) throws(BrokerError) -> PacketSocket? {
        let user: UInt32
        do throws(LinuxError) {
            let socket = try PacketSocket.connect(to: path)
            user = try socket.peer().user
            if UserNumbers.current.isOurs(user) { return socket }
        } catch {
            if error.code == EAGAIN { return nil }
            if [ENOENT, ECONNREFUSED].contains(error.code) { throw .noBroker(path) }
            throw .system(error)
        }
        throw .foreignPeer(user: user)
    }

    func send(_ bytes: [UInt8], passing descriptor: Int32 = -1) throws(BrokerError) {
        while true {
            switch socket.send(bytes, passing: descriptor) {
            case .done: return
            case .broken: throw .closed
            case .full:
                guard socket.waitForRoom(until: deadline) else { throw .overdue(milliseconds: milliseconds) }
            }
        }
    }

    func receive(into buffer: inout [UInt8]) throws(BrokerError) -> (message: [UInt8], passed: Int32) {
        while true {
            switch socket.receive(into: &buffer) {
            case .packet(let bytes, let passed): return (bytes, passed)
            case .closed: throw .closed
            case .odd: throw .malformed("a message is too long")
            case .nothing:
                guard socket.waitForInput(until: deadline) else { throw .overdue(milliseconds: milliseconds) }
            }
        }
    }

    func peer() throws(BrokerError) -> Int32 {
        do throws(LinuxError) { return try socket.peer().process } catch { throw .system(error) }
    }

    /// The kernel tells who sends what arrives.
    func tellSenders() throws(BrokerError) {
        do throws(LinuxError) { try socket.tellSenders(true) } catch { throw .system(error) }
    }

    /// The number of the process that listens, if it lives and has one here, else 0.
    func listener() -> Int32 {
        do throws(Peer.Unknown) {
            let peer = try socket.peerIdentity()
            return peer.handle.hasEnded ? 0 : peer.number ?? 0
        } catch { return 0 }
    }

    /// As ``receive(into:)``, with the number of the process that sent it, or 0; no descriptor is expected.
    func receiveFrom(into buffer: inout [UInt8]) throws(BrokerError) -> (message: [UInt8], sender: Int32) {
        while true {
            let (received, sender) = socket.receiveFrom(into: &buffer)
            switch received {
            case .packet(let bytes, let passed):
                if passed >= 0 { _ = OwnedDescriptor(adopting: passed) }
                return (bytes, sender.process)
            case .closed: throw .closed
            case .odd: throw .malformed("a message is too long")
            case .nothing:
                guard socket.waitForInput(until: deadline) else { throw .overdue(milliseconds: milliseconds) }
            }
        }
    }

    consuming func release() -> PacketSocket { socket }
}
