/// What `--kernel` names.
public enum KernelChoice: Equatable, Sendable {
    /// The Debian kernel of the image cache.
    case debian
    /// A payload of the catalogue.
    case payload(name: String)
    /// A file.
    case file(path: String)

    /// `debian`, `payload:NAME`, or else a path (`./debian` for a file of that name).
    public init(_ text: String) throws(SupportError) {
        switch text {
        case "":
            throw .requirement(
                problem: "no kernel is named", advice: "use a file, 'debian' or 'payload:NAME'")
        case "debian": self = .debian
        case _ where text.hasPrefix("payload:"):
            let name = String(text.dropFirst("payload:".count))
            guard !name.isEmpty, !name.contains("/") else {
                throw .requirement(problem: "'\(text)' names no payload", advice: "see 'mingle images list'")
            }
            self = .payload(name: name)
        default: self = .file(path: text)
        }
    }
}
