/// How scarce CPU time is, and with how many others a guest's sharing thread divides it.
public struct StoreMarket: Equatable, Sendable {
    /// Clients that ask the store for something at present, this one included.
    public var sharers: UInt16 = 1
    /// The longest that any guest's vCPUs wait for a CPU: thousandths of the time.
    public var waiting: UInt16 = 0
    public init() {}

    /// From so much waiting on, what sharing takes is missed by some guest.
    package static let scarceFrom: UInt16 = 200
    package var isScarce: Bool { waiting >= Self.scarceFrom }
}
