/// What a broker says of itself: `BrokerStore.statistics(path:)`.
public struct BrokerFigures: Equatable, Sendable {
    public struct Domain: Equatable, Sendable {
        public var name = ""
        public var epoch: UInt64 = 0
        public var store = StoreStatistics()
        /// References of clients whose connection is closed but whose process lives; bytes that they may keep: at most.
        public var orphanBytes: UInt64 = 0
        /// Memory that the store's file takes.
        public var allocatedBytes: UInt64 = 0
        public init() {}
    }
    public struct Client: Equatable, Sendable {
        /// Its number in the broker's PID namespace; 0 when it has none there.
        public var process: Int32 = 0
        public var domain = ""
        /// Pages of its guest.
        public var pageCount: UInt32 = 0
        /// References that it holds.
        public var references: UInt32 = 0
        /// Its connection is closed.
        public var isSilent = false
        public init() {}
    }
    /// Whether the broker has a cgroup of its own, to which frames are charged.
    public var hasOwnCgroup = false
    /// The PID namespace in which the numbers of clients mean something (the inode of its file in /proc); 0: unknown.
    public var processNamespace: UInt64 = 0
    /// The numbers of the supervisor and of the broker proper in the PID namespace of whoever asks; 0 where they have none, or
    /// the supervisor was lost. Not part of the message.
    public var supervisor: Int32 = 0
    public var worker: Int32 = 0
    public var domains: [Domain] = []
    public var clients: [Client] = []

    /// Sums over all domains.
    public var total: StoreStatistics {
        domains.reduce(into: StoreStatistics()) { sum, domain in
            sum.frames += domain.store.frames
            sum.references += domain.store.references
            sum.sightings += domain.store.sightings
            sum.retired += domain.store.retired
            sum.clients += domain.store.clients
        }
    }
    public init() {}
}

/// A part of the figures: asked for by the numbers of the first domain and client, since a message is bounded.
package struct FiguresPart: Equatable {
    /// Domains, and clients, in one message.
    package static let limit = 256
    package var figures = BrokerFigures()
    /// Of the broker, in all.
    package var domainCount: UInt32 = 0
    package var clientCount: UInt32 = 0

    package static func request(firstDomain: UInt32, firstClient: UInt32) -> [UInt8] {
        var writer = WireWriter(.statistics)
        writer.put(firstDomain)
        writer.put(firstClient)
        return writer.bytes
    }

    package func encoded() -> [UInt8] {
        var writer = WireWriter(.figures, capacity: 4096)
        writer.put(UInt8(figures.hasOwnCgroup ? 1 : 0))
        writer.put(figures.processNamespace)
        writer.put(domainCount)
        writer.put(clientCount)
        writer.put(UInt32(figures.domains.count))
        for domain in figures.domains {
            writer.put(domain.name)
            let store = domain.store
            let counts = [store.frames, store.references, store.sightings, store.retired, store.clients]
            for number in [domain.epoch, domain.orphanBytes, domain.allocatedBytes] + counts.map(UInt64.init)
            {
                writer.put(number)
            }
        }
        writer.put(UInt32(figures.clients.count))
        for client in figures.clients {
            writer.put(client.process)
            writer.put(client.domain)
            writer.put(client.pageCount)
            writer.put(client.references)
            writer.put(UInt8(client.isSilent ? 1 : 0))
        }
        return writer.bytes
    }

    package init() {}
    /// After the kind.
    package init?(_ reader: inout WireReader) {
        guard let cgroup = reader.take(UInt8.self), let namespace = reader.take(UInt64.self),
            let domainCount = reader.take(UInt32.self),
            let clientCount = reader.take(UInt32.self), let domains = reader.take(UInt32.self),
            let domainList = reader.list(count: domains, elementSize: 65, { Self.domain(&$0) }),
            let clients = reader.take(UInt32.self),
            let clientList = reader.list(count: clients, elementSize: 14, { Self.client(&$0) }),
            reader.left == 0
        else { return nil }
        figures.hasOwnCgroup = cgroup == 1
        figures.processNamespace = namespace
        figures.domains = domainList
        figures.clients = clientList
        self.domainCount = domainCount
        self.clientCount = clientCount
    }

    private static func domain(_ reader: inout WireReader) -> BrokerFigures.Domain? {
        guard let name = reader.text(),
            let numbers = reader.list(count: 8, elementSize: 8, { $0.take(UInt64.self) })
        else { return nil }
        let counts = numbers.map { Int(clamping: $0) }
        var domain = BrokerFigures.Domain()
        domain.name = name
        (domain.epoch, domain.orphanBytes, domain.allocatedBytes) = (numbers[0], numbers[1], numbers[2])
        domain.store.frames = counts[3]
        domain.store.references = counts[4]
        domain.store.sightings = counts[5]
        domain.store.retired = counts[6]
        domain.store.clients = counts[7]
        return domain
    }

    private static func client(_ reader: inout WireReader) -> BrokerFigures.Client? {
        guard let process = reader.take(Int32.self), let domain = reader.text(),
            let pageCount = reader.take(UInt32.self), let references = reader.take(UInt32.self),
            let silent = reader.take(UInt8.self)
        else { return nil }
        var client = BrokerFigures.Client()
        (client.process, client.domain, client.pageCount) = (process, domain, pageCount)
        (client.references, client.isSilent) = (references, silent == 1)
        return client
    }
}
