/// Counts of a store; pages.
public struct StoreStatistics: Equatable, Sendable {
    /// Frames that are referenced (KSM's pages_shared).
    public var frames = 0
    /// References by pages of clients; less `frames`, what is saved (KSM's pages_sharing).
    public var references = 0
    /// Contents seen once.
    public var sightings = 0
    /// Frames without references that wait for their memory to be freed.
    public var retired = 0
    /// Clients, silent ones included.
    public var clients = 0
    public init() {}
}
