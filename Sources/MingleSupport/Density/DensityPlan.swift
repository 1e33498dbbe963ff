public import VMMProtocol

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
    /// Merging begins when all guests are up, not while they start.
    public var sharesWhenUp = false
    /// A line for each guest's serial line, typed when all are up and merging has begun.
    public var typed: String?
    /// Files that Linux guests make in memory.
    public var data: GuestData?
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

    /// Files of noise that each Linux guest makes in its memory.
    public struct GuestData: Equatable, Sendable {
        /// Bytes that all guests hold alike, and bytes that each has of its own.
        public var commonBytes: UInt64 = 0
        public var uniqueBytes: UInt64 = 0

        /// Reads `common=SIZE,unique=SIZE`; what is not named is 0.
        public init(_ text: String) throws(SupportError) {
            for word in text.split(separator: ",", omittingEmptySubsequences: false) {
                let parts = word.split(separator: "=", maxSplits: 1)
                let size = parts.count == 2 ? try ByteSize.parse(String(parts[1])) : UInt64.max
                guard size <= UInt64(UInt32.max), parts[0] == "common" || parts[0] == "unique" else {
                    throw .requirement(
                        problem: "'\(text)' does not say what guests hold",
                        advice: "use common=SIZE,unique=SIZE, each below 4G")
                }
                if parts[0] == "common" { commonBytes = size } else { uniqueBytes = size }
            }
        }

        /// For the guest's init (guests/linux/README.md).
        func word(guest index: Int) -> String { "mingle.data=\(commonBytes),\(uniqueBytes),\(index + 1)" }
    }

    /// CPU seconds that a guest may take to say that it is up, and seconds in which it must have used some.
    static let bootSeconds: Double = 120
    static let restSeconds: Double = 30
    public static let mostGuests = 256

    /// Refuses what cannot be done.
    public func check() throws(SupportError) {
        guard (1...Self.mostGuests).contains(guests) else {
            throw .requirement(
                problem: "--guests \(guests) is not possible", advice: "use 1 to \(Self.mostGuests)")
        }
        if let data, data.commonBytes + data.uniqueBytes >= template.memoryBytes {
            throw .requirement(
                problem:
                    "--data asks for \(ByteSize.format(data.commonBytes + data.uniqueBytes)) in each guest, "
                    + "which has \(ByteSize.format(template.memoryBytes)) of memory",
                advice: "ask for less, or use a larger --memory")
        }
        guard mode == .builtin || domain == nil else {
            throw .requirement(problem: "--domain is of builtin sharing only", advice: "leave it out")
        }
    }
}
