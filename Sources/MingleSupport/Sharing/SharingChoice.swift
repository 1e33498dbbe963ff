import LinuxHost

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

    /// For `mingle-vmm`.
    var arguments: [String] {
        guard mode == .builtin else { return [] }
        var words = ["--sharing", waits ? "waiting" : "builtin", "--window", window.rawValue]
        if let domain { words += ["--domain", domain] }
        if let cpuPercent { words += ["--share-cpu", "\(cpuPercent)"] }
        if let traceFile { words += ["--trace-share", traceFile] }
        if let broker { words += ["--broker", broker] }
        return words
    }

    /// Checks the name of a domain and gives it back.
    public static func domain(_ text: String) throws(SupportError) -> String {
        let isName =
            (1...64).contains(text.utf8.count)
            && text.utf8.allSatisfy { byte in
                switch byte {
                case UInt8(ascii: "a")...UInt8(ascii: "z"), UInt8(ascii: "A")...UInt8(ascii: "Z"),
                    UInt8(ascii: "0")...UInt8(ascii: "9"):
                    true
                default: "._:-".utf8.contains(byte)
                }
            }
        guard isName else {
            throw .requirement(
                problem: "'\(text)' cannot name a domain",
                advice: "use 1 to 64 letters, digits, '.', '_', ':' and '-'")
        }
        guard !text.hasPrefix("private.") else {
            throw .requirement(
                problem: "'\(text)' cannot name a domain: the broker calls the domains of single guests so",
                advice: "use a name that does not begin with 'private.', or leave --domain out")
        }
        return text
    }

    /// Reads a share of one CPU: a percentage, with or without its sign.
    public static func percent(_ text: String) throws(SupportError) -> Double {
        guard let number = Double(text.hasSuffix("%") ? String(text.dropLast()) : text), number > 0,
            number <= 100
        else {
            throw .requirement(
                problem: "'\(text)' is no share of a CPU",
                advice: "use a percentage above 0 and up to 100, such as 25%")
        }
        return number
    }
}

/// Paths of sockets, which the kernel keeps shorter than those of files.
public enum SocketPath {
    /// Bytes, without the NUL (unix(7)).
    public static let maximumLength = 107

    /// Checks a path and gives it back.
    public static func checked(_ path: String) throws(SupportError) -> String {
        guard path.utf8.count <= maximumLength else {
            throw .requirement(
                problem:
                    "the socket \(path) has a path of \(path.utf8.count) bytes and at most \(maximumLength) fit",
                advice: "use a shorter name, or a shorter $XDG_RUNTIME_DIR")
        }
        return path
    }
}
