import FoundationEssentials

/// One line of the table.
struct Finding: Encodable {
    var figure: String
    var goal = ""
    var builtin = ""
    var ksm = ""
    var off = ""
    /// nil: there is no goal.
    var isReached: Bool?
    /// What decides, next to the verdict.
    var remark = ""
    /// The numbers behind it, by name, one a round.
    var values: [String: [Double]] = [:]
    /// Why it could not be measured.
    var failure: String?

    static func failed(_ name: String, _ error: any Error) -> Finding {
        var finding = Finding(figure: name)
        finding.failure = "\(error)"
        return finding
    }

    /// Compares with KSM: at most so many times its value.
    mutating func compare(_ own: Double?, _ other: Double?, atMost limit: Double) {
        guard let own else {
            (isReached, remark) = (false, "not got there")
            return
        }
        guard let other, other > 0 else {
            remark = "nothing to compare with"
            return
        }
        isReached = own <= limit * other
        remark = "\(decimal(own / other, own / other < 0.1 ? 4 : 2)) x KSM"
    }

    private var verdict: String {
        if let failure {
            return "**failed**: " + failure.split(whereSeparator: \.isNewline).joined(separator: " ")
        }
        let word = isReached.map { $0 ? "reached" : "**not reached**" }
        return [remark.isEmpty ? nil : remark, word].compactMap(\.self).joined(separator: ": ")
    }

    var line: String { "| " + [figure, goal, builtin, ksm, off, verdict].joined(separator: " | ") + " |" }

    static let heading =
        "| figure | goal | builtin | KSM, full speed | off | |\n| --- | --- | --- | --- | --- | --- |"
}

/// Values of several rounds.
struct Rounds {
    private(set) var values: [Double?] = []
    mutating func add(_ value: Double?) { values.append(value) }
    /// nil if a round has none.
    var median: Double? {
        values.isEmpty || values.contains { $0 == nil } ? nil : mingle_bench.median(values.compactMap(\.self))
    }
    /// For the record: -1 where a round has none.
    var record: [Double] { values.map { $0 ?? -1 } }
}
