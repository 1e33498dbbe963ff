/// A command of a guest's control socket (docs/control.md): one packet.
public enum ControlCommand: Equatable, Sendable {
    /// Answered by ``GuestStatistics``.
    case statistics
    case pause
    /// Takes back one pause of the same client.
    case resume
    /// A line for the guest's serial line, without its end.
    case type(String)
    /// Answered by ``PageDigests``: of each page, or of allocated ones; checksums, or BLAKE2b.
    case digest(everyPage: Bool, isChecksum: Bool)
    case sharing(isOn: Bool)
    /// Percent of one CPU that merging may take.
    case shareCPU(Double)
    /// Answered by ``PageShareExplanation``, or without a page by ``ShareExplanation``.
    case explain(page: Int?)
    /// A connection to a frame broker comes along.
    case broker
    /// Answered by lines of /proc/self/smaps_rollup.
    case memory
    /// Answered by lines for people.
    case debug

    /// Bytes of a packet at most.
    public static let packetLimit = 4096

    /// The words that commands begin with.
    private enum Word: String, CaseIterable {
        case stats, pause, resume, type, digest, sharing
        case shareCPU = "share-cpu"
        case explain, broker, memory, debug
    }
    private static let (everyPage, checksum) = ("pages", "checksum")
    private static let (on, off) = ("on", "off")

    /// The packet.
    public var text: String {
        let (word, argument): (Word, String?) =
            switch self {
            case .statistics: (.stats, nil)
            case .pause: (.pause, nil)
            case .resume: (.resume, nil)
            case .type(let line): (.type, line)
            case .digest(let everyPage, let isChecksum):
                (
                    .digest,
                    [everyPage ? Self.everyPage : nil, isChecksum ? Self.checksum : nil].compactMap(\.self)
                        .joined(separator: " ")
                )
            case .sharing(let isOn): (.sharing, isOn ? Self.on : Self.off)
            case .shareCPU(let percent): (.shareCPU, "\(percent)")
            case .explain(let page): (.explain, page.map { "\($0)" })
            case .broker: (.broker, nil)
            case .memory: (.memory, nil)
            case .debug: (.debug, nil)
            }
        guard let argument, !argument.isEmpty else { return word.rawValue }
        return word.rawValue + " " + argument
    }

    /// Why a text is no command: for people.
    public struct Mistake: Error, Equatable, Sendable {
        public let reason: String
    }

    /// Reads a packet.
    public init(_ text: String) throws(Mistake) {
        let words = text.split(separator: " ", maxSplits: 1)
        let argument = words.count > 1 ? words[1] : ""
        switch words.first.flatMap({ Word(rawValue: String($0)) }) {
        case .stats: self = .statistics
        case .pause: self = .pause
        case .resume: self = .resume
        case .type: self = .type(String(argument))
        case .digest:
            let wanted = argument.split(separator: " ")
            guard wanted.allSatisfy({ $0 == Self.everyPage || $0 == Self.checksum }) else {
                throw Mistake(
                    reason: "digest takes the words \(Self.everyPage) and \(Self.checksum), or none")
            }
            self = .digest(
                everyPage: wanted.contains { $0 == Self.everyPage },
                isChecksum: wanted.contains { $0 == Self.checksum })
        case .sharing:
            guard argument == Self.on || argument == Self.off else {
                throw Mistake(reason: "sharing on, or sharing off")
            }
            self = .sharing(isOn: argument == Self.on)
        case .shareCPU:
            guard let percent = SharingChoice.percentage(String(argument)) else {
                throw Mistake(reason: "share-cpu takes a percentage above 0 and up to 100")
            }
            self = .shareCPU(percent)
        case .explain:
            let page = Int(argument)
            guard page != nil || argument.isEmpty else {
                throw Mistake(reason: "explain takes the number of a page, or nothing")
            }
            self = .explain(page: page)
        case .broker: self = .broker
        case .memory: self = .memory
        case .debug: self = .debug
        case nil:
            let known = Word.allCases.map(\.rawValue).joined(separator: ", ")
            throw Mistake(reason: "unknown command; use \(known)")
        }
    }
}

/// The first packet of the answer to a command.
public enum ControlAnswer: Equatable, Sendable {
    /// What was asked for.
    case said(String)
    /// Nothing was done: why, for people.
    case refused(String)

    /// It was done, and there is nothing to tell.
    public static let done = ControlAnswer.said("ok")
    /// Of a guest that will never share: a broker need not ask again. Any other refusal may pass.
    public static let sharesNothing = ControlAnswer.refused("this guest was started with --sharing off")

    /// Bytes of any packet of an answer, at most.
    public static let packetLimit = 60_000
    private static let refusal = "error: "

    /// The packet.
    public var text: String {
        switch self {
        case .said(let text): text
        case .refused(let reason): Self.refusal + reason
        }
    }

    /// Reads a packet.
    public init(_ text: String) {
        self =
            text.hasPrefix(Self.refusal)
            ? .refused(String(text.dropFirst(Self.refusal.count))) : .said(text)
    }
}
