public import GuestMemory

/// The VMM's answer to `explain`: why each page of a guest is shared, or is not.
public struct ShareExplanation: Equatable, Sendable {
    /// Pages of a packet at most; a byte for each.
    private static let packetLimit = 32_768

    /// Of each page, in the order of the guest's memory file.
    public var reasons: [PageSharingReason]
    public var domain: String
    /// Why the guest as a whole is left alone for now.
    public var hold: String?

    public init(reasons: [PageSharingReason], domain: String, hold: String?) {
        (self.reasons, self.domain, self.hold) = (reasons, domain, hold)
    }

    /// How many pages there are for each reason that there is.
    public var counts: [PageSharingReason: Int] {
        reasons.reduce(into: [:]) { $0[$1, default: 0] += 1 }
    }

    /// The first is text: `domain`, `pages`, and `hold` if there is one. The others hold a byte for each page: the place of its
    /// reason among all reasons.
    public var packets: [[UInt8]] {
        let head = KeyValueText.text(
            [("domain", domain), ("pages", "\(reasons.count)")] + (hold.map { [("hold", $0)] } ?? []))
        let numbers = Dictionary(
            uniqueKeysWithValues: zip(PageSharingReason.allCases, UInt8(0)...).map { ($0, $1) })
        let starts = stride(from: 0, to: reasons.count, by: Self.packetLimit)
        return [Array(head.utf8)]
            + starts.map { start in
                reasons[start..<min(start + Self.packetLimit, reasons.count)].map { numbers[$0] ?? 0 }
            }
    }

    /// Reads packets as they come.
    /// - Returns: nil when they are none of ours.
    public init?<Failure: Error>(receiving next: () throws(Failure) -> [UInt8]) throws(Failure) {
        let values = KeyValueText(parsing: String(decoding: try next(), as: UTF8.self))
        guard let domain = values["domain"], let pages: Int = values.number("pages"), 0...1 << 27 ~= pages
        else { return nil }
        var reasons: [PageSharingReason] = []
        let all = PageSharingReason.allCases
        while reasons.count < pages {
            let part = try next()
            guard !part.isEmpty, reasons.count + part.count <= pages, part.allSatisfy({ $0 < all.count })
            else { return nil }
            reasons += part.map { all[Int($0)] }
        }
        self.init(reasons: reasons, domain: domain, hold: values["hold"])
    }
}

/// The VMM's answer to `explain PAGE`.
public struct PageShareExplanation: Equatable, Sendable {
    /// A page of another guest, or another one of the same, that maps the same frame.
    public struct Companion: Equatable, Sendable {
        /// Of the VMM; 0: it has no number where the broker is.
        public var process: UInt32
        public var page: UInt32
        public init(process: UInt32, page: UInt32) { (self.process, self.page) = (process, page) }
    }
    public var reason: PageSharingReason
    /// What is mapped there, for people: `home`, `zero`, or a frame's place in the store.
    public var backing: String
    /// Pages that map the same, itself included; 0: that is not counted.
    public var mappers: Int
    /// As many as were soon found.
    public var companions: [Companion]

    public init(reason: PageSharingReason, backing: String, mappers: Int, companions: [Companion]) {
        (self.reason, self.backing, self.mappers, self.companions) = (reason, backing, mappers, companions)
    }

    public var text: String {
        KeyValueText.text([
            ("reason", reason.rawValue), ("backing", backing), ("mappers", "\(mappers)"),
            ("with", companions.map { "\($0.process):\($0.page)" }.joined(separator: " ")),
        ])
    }

    /// - Returns: nil when it is no such text.
    public init?(_ text: String) {
        let values = KeyValueText(parsing: text)
        guard let reason = values["reason"].flatMap(PageSharingReason.init(rawValue:)),
            let backing = values["backing"], let mappers: Int = values.number("mappers"),
            let with = values["with"]
        else { return nil }
        var companions: [Companion] = []
        for item in with.split(separator: " ") {
            let numbers = item.split(separator: ":", omittingEmptySubsequences: false).map { UInt32($0) }
            guard numbers.count == 2, let process = numbers[0], let page = numbers[1] else { return nil }
            companions.append(Companion(process: process, page: page))
        }
        self.init(reason: reason, backing: backing, mappers: mappers, companions: companions)
    }
}
