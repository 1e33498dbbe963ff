internal import CLinux
internal import GuestMemory

/// What all clients together, and each of them, may ask of a broker.
public struct BrokerLimits: Sendable {
    /// Connections that joined, those included whose process lives on after its connection closed.
    public var clients = 1024
    /// Of one process.
    public var clientsOfProcess = 64
    /// Connections that did not join: waiting with their greeting, or asking for statistics.
    public var strangers = 64
    /// Pages of all clients' guests.
    public var pages: UInt64
    /// Connections taken in one turn.
    public var acceptsPerTurn = 16
    /// Pages forgotten and frames freed in one turn on behalf of clients that left.
    public var sweepPerTurn = 512
    /// How long a connection may take to greet; how long an answer may wait to be read; how long a client that
    /// was asked to speak may be quiet while others' freed frames wait for it; milliseconds.
    public var greeting = 5_000
    public var unread = 10_000
    public var quiet = 30_000
    /// How long a client must have been quiet to be told that something waits for it; milliseconds.
    public var notice = 100
    /// How long the broker waits for its first client, and after its last; milliseconds.
    public var firstClient = 10_000
    public var linger = 1_000

    /// What the kernel can prove of clients.
    package var ability = Peer.Ability.all

    /// - Parameter pages: nil: eight times the host's memory, whose table takes at most a 128th of it.
    public init(pages: UInt64? = nil) {
        let physical = UInt64(max(0, sysconf(Int32(_SC_PHYS_PAGES))))
        self.pages = pages ?? max(physical, 1 << 18) * 8
    }

    /// Keeps the number of clients within the number of descriptors that the process may have: each takes up to five.
    mutating func fit(descriptors: Int) {
        clients = max(4, min(clients, (descriptors - strangers * 3 - 32) / 5))
    }
}
