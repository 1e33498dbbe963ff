internal import GuestMemory

/// What holds for all parts of an engine at a time: what they may do, what they have cost the guest, whether it may go on.
final class PassConditions {
    var policy: SharingPolicy
    /// What was done to the guest since this was last reset.
    var disturbances = Disturbances()
    /// What a pass may cost the guest, and the prices it is counted by; nanoseconds.
    var lossLimit = Double.infinity
    var lossScale = LossScale(.assumed, nil)
    /// Why the guest must not go on, once that is so.
    var fatal: MappingFailure?

    init(_ policy: SharingPolicy) { self.policy = policy }

    /// The guest has lost to this pass what it may.
    var isTooMuch: Bool { lossScale.cost(disturbances) > lossLimit }
}
