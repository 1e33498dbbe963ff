/// Sizes as people write them. Every unit is a power of 1024, as is usual for memory: `128M` and `128Mi` both are
/// 128 * 1024 * 1024 bytes.
public enum ByteSize {
    private static let units: [(letter: Character, shift: Int)] = [
        ("K", 10), ("M", 20), ("G", 30), ("T", 40),
    ]

    /// Parses a whole number of bytes with an optional unit: K, M, G or T, alone or followed by `i`, `B` or `iB`;
    /// lower case is accepted.
    public static func parse(_ text: String) throws(SupportError) -> UInt64 {
        let digits = text.prefix { $0.isASCII && $0.isNumber }
        guard let number = UInt64(digits) else { throw .invalidSize(text: text) }
        var suffix = text.dropFirst(digits.count).uppercased()
        if suffix.isEmpty || suffix == "B" { return number }
        if suffix.hasSuffix("B") { suffix.removeLast() }
        if suffix.hasSuffix("I") { suffix.removeLast() }
        guard suffix.count == 1, let unit = units.first(where: { String($0.letter) == suffix }) else {
            throw .invalidSize(text: text)
        }
        let (bytes, overflow) = number.multipliedReportingOverflow(by: 1 << UInt64(unit.shift))
        guard !overflow else { throw .invalidSize(text: text) }
        return bytes
    }

    /// A size for people: the largest unit that leaves at least 1, with one decimal where it is not a whole number.
    public static func format(_ bytes: UInt64) -> String {
        guard let unit = units.last(where: { bytes >> UInt64($0.shift) > 0 }) else { return "\(bytes)B" }
        let whole = bytes >> UInt64(unit.shift)
        let rest = bytes - whole << UInt64(unit.shift)
        if rest == 0 { return "\(whole)\(unit.letter)" }
        return "\(whole).\((rest * 10) >> UInt64(unit.shift))\(unit.letter)"
    }
}
