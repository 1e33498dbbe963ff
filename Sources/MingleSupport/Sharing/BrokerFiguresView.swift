internal import FrameStore
internal import BrokerClient
internal import GuestMemory
public import LinuxHost
public import VMMProtocol

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
    /// The control group that frames are charged to; nil when it is not known.
    public var group: String?
    /// What it was given by whoever started it, and could not lift.
    public var constraints: [ProcessConstraint] = []
    public var domains: [Domain] = []
    public var clients: [Client] = []

    public init() {}

    /// Asks the broker at a socket; nil if none runs there.
    /// - Throws: ``SupportError/brokerBusy(reason:)`` when one runs but does not answer.
    public static func read(socket: String) throws(SupportError) -> BrokerReport? {
        guard SystemCall.exists(socket) else { return nil }
        do throws(BrokerError) {
            let figures = try BrokerStore.statistics(path: socket)
            var report = BrokerReport(figures)
            report.socket = socket
            report.processes = [figures.supervisor, figures.worker].filter { $0 > 0 }
            // The worker first: it is the one that holds everything.
            for process in report.processes.reversed() {
                let found = ProcessConstraint.all(of: "\(process)")
                report.constraints += found.filter { constraint in
                    !report.constraints.contains { $0.kind == constraint.kind }
                }
            }
            report.group = report.processes.last.flatMap {
                ControlGroupHierarchy.ofMemory()?.group(of: "\($0)")
            }
            report.anonymousBytes = report.processes.compactMap { ProcessFigures(process: $0) }
                .reduce(0) { $0 + $1.anonymousBytes + $1.swapBytes }
            return report
        } catch {
            if case .noBroker = error { return nil }
            if case .busy = error { throw .brokerBusy(reason: "\(error)") }
            throw .requirement(problem: "\(error)", advice: "see the log \(Self.log(beside: socket))")
        }
    }

    private static func log(beside socket: String) -> String {
        BrokerFiles(directory: String(socket[..<(socket.lastIndex(of: "/") ?? socket.startIndex)])).log
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
            ("cgroup", .optional(group)),
            ("kept_limits", .array(constraints.map { .string($0.description) })),
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
