/// Names a client of a store.
public struct StoreClient: Hashable, Sendable {
    public let value: UInt32
    public init(_ value: UInt32) { self.value = value }
}
