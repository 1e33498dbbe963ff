/// A JSON document (RFC 8259) to be written. Objects keep the order of their keys, so that output is stable.
///
/// The only writer of JSON: the VMM links no Foundation. Reading is Foundation's, see ``JSONObject``.
public enum JSONValue: Equatable, Sendable {
    case null
    case boolean(Bool)
    case integer(Int64)
    case unsigned(UInt64)
    case decimal(Double)
    case string(String)
    case array([JSONValue])
    case object([(key: String, value: JSONValue)])

    public static func == (left: JSONValue, right: JSONValue) -> Bool { left.text() == right.text() }

    /// The document, indented by two spaces a level.
    /// - Parameter levels: how many levels of objects and arrays stand over several lines; what is below is in one.
    public func text(levels: Int = .max) -> String {
        var result = ""
        write(to: &result, indent: 0, levels: levels)
        return result
    }

    private func write(to result: inout String, indent: Int, levels: Int) {
        switch self {
        case .null: result += "null"
        case .boolean(let value): result += value ? "true" : "false"
        case .integer(let value): result += String(value)
        case .unsigned(let value): result += String(value)
        case .decimal(let value): result += value.isFinite ? "\(value)" : "null"
        case .string(let value): Self.quote(value, to: &result)
        case .array(let values):
            result += "["
            for (index, value) in values.enumerated() {
                Self.separate(&result, isFirst: index == 0, indent: indent + 1, levels: levels)
                value.write(to: &result, indent: indent + 1, levels: levels - 1)
            }
            if !values.isEmpty { Self.separate(&result, isFirst: true, indent: indent, levels: levels) }
            result += "]"
        case .object(let pairs):
            result += "{"
            for (index, pair) in pairs.enumerated() {
                Self.separate(&result, isFirst: index == 0, indent: indent + 1, levels: levels)
                Self.quote(pair.key, to: &result)
                result += ": "
                pair.value.write(to: &result, indent: indent + 1, levels: levels - 1)
            }
            if !pairs.isEmpty { Self.separate(&result, isFirst: true, indent: indent, levels: levels) }
            result += "}"
        }
    }

    /// A comma but before the first, and what follows it.
    private static func separate(_ result: inout String, isFirst: Bool, indent: Int, levels: Int) {
        if !isFirst { result += "," }
        if levels > 0 {
            result += "\n" + String(repeating: "  ", count: indent)
        } else if !isFirst {
            result += " "
        }
    }

    /// A string, or null.
    public static func optional(_ text: String?) -> JSONValue { text.map { .string($0) } ?? .null }
    /// A number, or null.
    public static func optional(_ number: UInt64?) -> JSONValue { number.map { .unsigned($0) } ?? .null }

    /// A number, or null.
    public static func optional(_ number: Double?) -> JSONValue { number.map { .decimal($0) } ?? .null }

    private static func quote(_ text: String, to result: inout String) {
        result += "\""
        for scalar in text.unicodeScalars {
            switch scalar {
            case "\"": result += "\\\""
            case "\\": result += "\\\\"
            case "\n": result += "\\n"
            case "\t": result += "\\t"
            case "\r": result += "\\r"
            case _ where OneLine.isControl(scalar):
                let digits = String(scalar.value, radix: 16)
                result += "\\u" + String(repeating: "0", count: 4 - digits.count) + digits
            default: result.unicodeScalars.append(scalar)
            }
        }
        result += "\""
    }
}
