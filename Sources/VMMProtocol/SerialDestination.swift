/// Where the guest's first serial line goes.
public enum SerialDestination: Equatable, Sendable {
    /// To standard output, and from standard input.
    case standardStreams
    /// Nowhere; nothing can be typed either.
    case none
    /// Output is written to a file; nothing can be typed.
    case file(path: String)

    /// Parses `stdio`, `none` or `file:PATH`; nil if it is none of them.
    public init?(_ text: String) {
        switch text {
        case "stdio": self = .standardStreams
        case "none": self = .none
        default:
            guard text.hasPrefix("file:"), text.utf8.count > 5 else { return nil }
            self = .file(path: String(text.dropFirst(5)))
        }
    }

    /// The form that both `mingle run` and `mingle-vmm` accept.
    public var argument: String {
        switch self {
        case .standardStreams: "stdio"
        case .none: "none"
        case .file(let path): "file:\(path)"
        }
    }
}
