internal import FrameBroker
internal import Sharing

/// What a broker says of itself, for tables and JSON.
public struct BrokerReport: Equatable, Sendable {
    public struct Domain: Equatable, Sendable {
        public var name = ""
        public var epoch: UInt64 = 0
        public var clients: UInt64 = 0
        /// Frames that the store holds: KSM's pages_shared.
        public var frames: UInt64 = 0
        /// Mappings of them, of all guests.
        public var references: UInt64 = 0
        public var sightings: UInt64 = 0
        /// Freed frames that wait until nobody can mean them any more.
        public var retired: UInt64 = 0
        /// What the store's file takes of memory.
        public var allocatedBytes: UInt64 = 0
        /// What guests keep of it whose connection is closed, at most.
        public var orphanBytes: UInt64 = 0
        public init() {}

        /// KSM's pages_sharing: mappings beyond the first of each frame.
        public var pagesSharing: UInt64 { references - min(references, frames) }
    }
    public struct Client: Equatable, Sendable {
        /// nil when it has no number in this PID namespace.
        public var process: Int32?
        public var domain = ""
        public var pages: UInt64 = 0
        public var references: UInt64 = 0
        public var isSilent = false
        public init() {}
    }

    public var socket = ""
    /// The supervisor and the broker proper, where they have a number in this PID namespace.
    public var processes: [Int32] = []
    public var anonymousBytes: UInt64 = 0
    public var hasOwnCgroup = false
    public var domains: [Domain] = []
    public var clients: [Client] = []

    public init() {}

    /// Asks the broker at a socket; nil if none answers there.
    public static func read(socket: String) throws(SupportError) -> BrokerReport? {
        guard SystemCall.exists(socket) else { return nil }
        do throws(BrokerError) {
            let figures = try BrokerStore.statistics(path: socket)
            var report = BrokerReport(figures)
            report.socket = socket
            report.processes = [figures.supervisor, figures.worker].filter { $0 > 0 }
            report.anonymousBytes = report.processes.compactMap { ProcessFigures(process: $0) }
                .reduce(0) { $0 + $1.anonymousBytes + $1.swapBytes }
            return report
        } catch {
            if case .noBroker = error { return nil }
            throw .requirement(problem: "\(error)", advice: "see the log \(Self.log(beside: socket))")
        }
    }

    private static func log(beside socket: String) -> String {
        String(socket[..<(socket.lastIndex(of: "/") ?? socket.startIndex)]) + "/broker.log"
    }

    private init(_ figures: BrokerFigures) {
        hasOwnCgroup = figures.hasOwnCgroup
        domains = figures.domains.map { figure in
            var domain = Domain()
            domain.name = figure.name
            domain.epoch = figure.epoch
            domain.clients = UInt64(clamping: figure.store.clients)
            domain.frames = UInt64(clamping: figure.store.frames)
            domain.references = UInt64(clamping: figure.store.references)
            domain.sightings = UInt64(clamping: figure.store.sightings)
            domain.retired = UInt64(clamping: figure.store.retired)
            domain.allocatedBytes = figure.allocatedBytes
            domain.orphanBytes = figure.orphanBytes
            return domain
        }
        clients = figures.clients.map { figure in
            var client = Client()
            let isLocal = figures.processNamespace == ProcessNamespace.current
            client.process = isLocal && figure.process > 0 ? figure.process : nil
            client.domain = figure.domain
            client.pages = UInt64(figure.pageCount)
            client.references = UInt64(figure.references)
            client.isSilent = figure.isSilent
            return client
        }
    }

    public var json: JSONValue {
        .object([
            ("socket", .string(socket)), ("processes", .array(processes.map { .integer(Int64($0)) })),
            ("anonymous_bytes", .unsigned(anonymousBytes)), ("own_cgroup", .boolean(hasOwnCgroup)),
            ("orphan_bytes", .unsigned(domains.reduce(0) { $0 + $1.orphanBytes })),
            ("domains", .array(domains.map(\.json))), ("clients", .array(clients.map(\.json))),
        ])
    }
}

extension BrokerReport.Domain {
    public var json: JSONValue {
        .object([
            ("name", .string(name)), ("epoch", .string(String(epoch, radix: 16))),
            ("clients", .unsigned(clients)),
            ("pages_shared", .unsigned(frames)), ("references", .unsigned(references)),
            ("pages_sharing", .unsigned(pagesSharing)), ("sightings", .unsigned(sightings)),
            ("frames_retired", .unsigned(retired)), ("store_bytes", .unsigned(allocatedBytes)),
            ("orphan_bytes", .unsigned(orphanBytes)),
        ])
    }
}

extension BrokerReport.Client {
    var json: JSONValue {
        .object([
            ("pid", process.map { .integer(Int64($0)) } ?? .null), ("domain", .string(domain)),
            ("pages", .unsigned(pages)),
            ("references", .unsigned(references)), ("silent", .boolean(isSilent)),
        ])
    }
}

/// The broker of a state directory.
public enum BrokerService {
    public static func socket(_ directory: StateDirectory) -> String {
        BrokerLauncher.socketPath(stateDirectory: directory.path)
    }

    /// Sees to it that it runs, and gives its socket.
    /// - Parameter busyMilliseconds: how long one that runs may take to answer.
    @discardableResult
    public static func ensureRunning(in directory: StateDirectory, busyMilliseconds: Int = 10_000)
        throws(SupportError) -> String
    {
        let socket = try SocketPath.checked(socket(directory))
        let program = try Companion.broker.path()
        do throws(BrokerError) {
            try BrokerLauncher.ensureRunning(
                stateDirectory: directory.path, executable: program,
                busyMilliseconds: busyMilliseconds)
        } catch {
            throw .requirement(
                problem: "\(error)", advice: "see \(directory.path)/broker.log, or use --sharing off")
        }
        return socket
    }

    /// Ends the broker of a directory that goes, and waits until it has; guests of it keep what they map.
    static func end(in directory: String) {
        let socket = BrokerLauncher.socketPath(stateDirectory: directory)
        // A supervisor that was lost is replaced in a moment.
        for attempt in 0..<500 where SystemCall.exists(socket) {
            if attempt % 50 == 0 { try? BrokerStore.endBroker(path: socket) }
            SystemCall.sleep(milliseconds: 10)
        }
    }
}
