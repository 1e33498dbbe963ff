/// The `key=value` lines of the state directory's files. A value goes to the end of its line; keys that are not known
/// are ignored, so that a newer VMM may write more.
public struct KeyValueText {
    private var values: [String: String] = [:]

    public init(parsing text: String) {
        for line in text.split(separator: "\n") {
            guard let equals = line.firstIndex(of: "=") else { continue }
            values[String(line[..<equals])] = String(line[line.index(after: equals)...])
        }
    }

    /// The text for pairs in order. Control characters in a value, which would break the lines, become `?`.
    public static func text(_ pairs: [(String, String)]) -> String {
        pairs.map { "\($0.0)=\(OneLine.label($0.1))\n" }.joined()
    }

    public subscript(key: String) -> String? { values[key] }

    public func number<Number: FixedWidthInteger>(_ key: String, as type: Number.Type = Number.self)
        -> Number?
    {
        values[key].flatMap { Number($0) }
    }
}
