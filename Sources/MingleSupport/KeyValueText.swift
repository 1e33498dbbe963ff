/// The `key=value` lines of the state directory's files. A value goes to the end of its line; keys that are not known
/// are ignored, so that a newer VMM may write more.
struct KeyValueText {
    private var values: [String: String] = [:]

    init(parsing text: String) {
        for line in text.split(separator: "\n") {
            guard let equals = line.firstIndex(of: "=") else { continue }
            values[String(line[..<equals])] = String(line[line.index(after: equals)...])
        }
    }

    /// The text for pairs in order. Control characters in a value, which would break the lines, become `?`.
    static func text(_ pairs: [(String, String)]) -> String {
        pairs.map { "\($0.0)=\(OneLine.label($0.1))\n" }.joined()
    }

    subscript(key: String) -> String? { values[key] }

    func number<Number: FixedWidthInteger>(_ key: String, as type: Number.Type = Number.self) -> Number? {
        values[key].flatMap { Number($0) }
    }
}
