/// How a guest's memory is shared, as the options say.
public struct SharingChoice: Equatable, Sendable {
    /// Who merges pages.
    public enum Mode: String, CaseIterable, Sendable {
        /// Mingle itself.
        case builtin
        /// Nobody.
        case off
    }
    /// How the pages of a batch are kept from changing while they are merged.
    public enum Window: String, CaseIterable, Sendable { case auto, userfaultfd, pause }

    public var mode = Mode.off
    /// Nothing is merged before the control command `sharing on`.
    public var waits = false
    /// nil: of this guest alone.
    public var domain: String?
    /// Percent of one CPU; nil: the VMM's own default.
    public var cpuPercent: Double?
    public var window = Window.auto
    public var traceFile: String?
    /// The broker's socket; without one, only zero pages are shared.
    public var broker: String?

    public init() {}

    /// Reads a share of one CPU: a percentage above 0 and up to 100, with or without its sign; nil if it is none.
    public static func percentage(_ text: String) -> Double? {
        guard let number = Double(text.hasSuffix("%") ? String(text.dropLast()) : text), number > 0,
            number <= 100
        else { return nil }
        return number
    }
}
