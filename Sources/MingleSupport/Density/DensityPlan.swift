/// What a density experiment is to do.
public struct DensityPlan: Sendable {
    public enum Mode: String, CaseIterable, Sendable {
        case builtin, ksm, off
    }

    public var guests = 4
    /// The arguments of each guest; name, serial line and sharing are the experiment's.
    public var template: VMMInvocation
    /// What was asked for, for people.
    public var image: String
    /// It answers `check` on its serial line.
    public var checksItself = false
    public var mode = Mode.builtin
    /// How long guests run after all are up, in each of the two runs.
    public var seconds = 10
    /// nil: one that is made for this experiment, with a broker of its own.
    public var domain: String?
    public var cpuPercent: Double?
    public var window = SharingChoice.Window.auto
    public var verifies = false
    /// Start them though their worst case does not fit in memory.
    public var overcommits = false
    /// Run the same guests with sharing off first.
    public var hasBaseline = true
    /// Facts of the host that the caller found out.
    public var hostFacts: [(key: String, value: JSONValue)] = []

    public init(template: VMMInvocation, image: String) {
        self.template = template
        self.image = image
    }

    /// How long guests may take to say that they are up.
    static let bootSeconds: Double = 120
    public static let mostGuests = 256

    /// Refuses what cannot be done.
    public func check() throws(SupportError) {
        guard (1...Self.mostGuests).contains(guests) else {
            throw .requirement(
                problem: "--guests \(guests) is not possible", advice: "use 1 to \(Self.mostGuests)")
        }
        guard mode == .builtin || domain == nil else {
            throw .requirement(problem: "--domain is of builtin sharing only", advice: "leave it out")
        }
    }
}
