public import GuestMemory
internal import LinuxHost
public import VMMProtocol

/// Why the pages of a running guest are shared, or are not, as far as all guests of the user can tell.
public struct SharingExplanation: Sendable {
    public let guest: String
    public let domain: String
    /// Why the guest as a whole is left alone for now.
    public let hold: String?
    /// Of each page, in order.
    public let reasons: [PageSharingReason]

    /// Asks the guest, and those of other domains what they hold.
    public static func read(_ guest: String, in directory: StateDirectory) throws(SupportError) -> Self {
        let client = try ControlClient(guest: guest, in: directory)
        let answer = try client.explain()
        var reasons = answer.reasons
        if reasons.contains(.unique) {
            let others = try strangers(to: guest, answer.domain, directory)
            if !others.isEmpty {
                let own = try client.digests(everyPage: true, isChecksum: true)
                let held = try contents(of: others, directory)
                for page in reasons.indices.prefix(own.count)
                where reasons[page] == .unique && held.contains(own[page]) {
                    reasons[page] = .otherDomain
                }
            }
        }
        return Self(guest: guest, domain: answer.domain, hold: answer.hold, reasons: reasons)
    }

    /// Running guests that share, in another domain.
    private static func strangers(
        to guest: String, _ domain: String, _ directory: StateDirectory
    ) throws(SupportError) -> [String] {
        var found: [String] = []
        for record in try GuestRegistry(directory: directory).guests().running where record.name != guest {
            // Who ends meanwhile, or does not share, holds nothing that could be shared.
            guard let sharing = try? ControlClient(guest: record.name, in: directory).statistics().sharing
            else { continue }
            if sharing.domain != domain || domain == SharingFigures.ownDomain { found.append(record.name) }
        }
        return found
    }

    static func contents(of guests: [String], _ directory: StateDirectory) throws(SupportError)
        -> Set<PageDigest>
    {
        var held: Set<PageDigest> = []
        for name in guests {
            do throws(SupportError) {
                let client = try ControlClient(guest: name, in: directory)
                held.formUnion(try client.digests(everyPage: false, isChecksum: true))
            } catch {
                // Who ends meanwhile holds nothing.
                guard GuestRegistry(directory: directory).isEnding(name) else { throw error }
            }
        }
        return held
    }

    /// How many pages there are for each reason that there is; together all pages.
    public var counts: [PageSharingReason: Int] {
        reasons.reduce(into: [:]) { $0[$1, default: 0] += 1 }
    }

    public var table: String {
        var table = TextTable(["REASON", "PAGES", "SIZE", "MEANING"], rightAligned: ["PAGES", "SIZE"])
        func add(_ name: String, _ count: Int, _ meaning: String) {
            table.add([name, "\(count)", ByteSize.format(UInt64(count) * RunChecks.pageSize), meaning])
        }
        for reason in PageSharingReason.allCases {
            if let count = counts[reason] { add(reason.rawValue, count, reason.meaning) }
        }
        add("all", reasons.count, "pages of \(guest), domain \(domain)")
        return table.text + (hold.map { "\nleft alone for now: \($0)" } ?? "")
    }

    public var json: JSONValue {
        let found = PageSharingReason.allCases.compactMap { reason in
            counts[reason].map { (reason.rawValue, JSONValue.integer(Int64($0))) }
        }
        return .object([
            ("name", .string(guest)), ("domain", .string(domain)),
            ("hold", hold.map { .string($0) } ?? .null), ("pages", .integer(Int64(reasons.count))),
            ("reasons", .object(found)),
        ])
    }
}

extension PageSharingReason {
    /// For people, in a few words.
    public var meaning: String {
        switch self {
        case .shared: "maps a frame that other pages map, too"
        case .zero: "maps the kernel's page of zeros"
        case .singleMapper: "maps a frame that nobody else maps (any more)"
        case .unique: "no other page of the domain holds the same"
        case .otherDomain: "a guest of another domain holds the same"
        case .volatile: "written too often, or just now"
        case .unseen: "not looked at yet since it was written last"
        case .device: "a device is writing it"
        case .givenUp: "its sharing was given up: the process is short of mappings"
        case .putOff: "could not be mapped or recorded; tried again later"
        case .storeLost: "maps a lost store, or the broker does not answer"
        case .hole: "never touched: no memory"
        }
    }
}
