public import FrameStore

/// Something happened to a page; for `--trace-share`, without which a lost byte could not be found.
public struct ShareEvent: Equatable, Sendable, CustomStringConvertible {
    public enum Kind: String, Sendable {
        /// The store knows its hash.
        case sighted
        /// Mapped to a frame.
        case merged
        /// Got a private copy inside a stretch that was mapped.
        case absorbed
        /// Mapped to the zero page.
        case zeroed
        /// In the window, its bytes were not what was expected.
        case mismatch
        /// The guest wrote it: a private copy.
        case unshared
        /// The store was told to forget it.
        case released
        /// Taken home.
        case rehomed
    }
    public var kind: Kind
    /// Number in the guest's memory file.
    public var page: Int
    public var location: FrameLocation?
    public var description: String {
        location.map { "\(kind.rawValue) page=\(page) \($0)" } ?? "\(kind.rawValue) page=\(page)"
    }
}
