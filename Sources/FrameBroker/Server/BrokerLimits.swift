package import LinuxHost

/// What all clients together, and each of them, may ask of a broker.
public struct BrokerLimits: Sendable {
    /// Connections that joined, those included whose process lives on after its connection closed.
    public var clients = 1024
    /// Of one process.
    public var clientsOfProcess = 64
    /// Connections that did not join: waiting with their greeting, or asking for statistics; as many more of processes that have
    /// joined before.
    public var strangers = 64
    /// Of one process.
    public var strangersOfProcess = 8
    /// Pages of which the clients of one process may have anything known; nil: by what it holds (``MemoryAllowance``).
    public var pagesOfProcess: Int?
    /// Connections taken in one turn.
    public var acceptsPerTurn = 64
    /// How long messages are listened to in a turn, until the next one looks who has something to say; microseconds.
    public var turn = 2_000
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
    /// The broker's memory is charged to the control group of its starter, limits of which it keeps.
    public var staysInGroup = false

    /// What the kernel can prove of clients.
    package var ability = Peer.Ability.all

    public init() {}

    /// Keeps the numbers of strangers and clients within the number of descriptors that the process may have: a client takes up to
    /// six, with the closed connection that it replaces.
    mutating func fit(descriptors: Int) {
        strangers = max(4, min(strangers, (descriptors - 32) / 8))
        strangersOfProcess = min(strangersOfProcess, strangers)
        clients = max(4, min(clients, (descriptors - strangers * 4 - 32) / 6))
    }
}
