/// What a guest of this host pays when its memory is watched or remapped.
public struct DisturbancePrices: Sendable, Equatable {
    /// Nanoseconds for the first write to a page after its bit in the dirty log was cleared.
    public var fault: Double
    /// Nanoseconds that a running vCPU loses when it has to leave the guest and finds its translations gone.
    public var call: Double

    /// - Parameters: nanoseconds; below zero counts as zero.
    public init(fault: Double, call: Double) {
        self.fault = max(0, fault)
        self.call = max(0, call)
    }

    /// Where nothing could be measured: more than was seen on any host without nested emulation.
    public static let assumed = DisturbancePrices(fault: 30_000, call: 100_000)
}
