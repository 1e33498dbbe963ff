import Foundation
import TestSupport
import Testing
import VMMProtocol

/// What is written is JSON: Foundation reads the same out of it.
@Suite struct JSONTests {
    private static func random(_ random: inout SeededGenerator, depth: Int) -> JSONValue {
        switch Int.random(in: 0..<(depth > 0 ? 8 : 6), using: &random) {
        case 0: .null
        case 1: .boolean(.random(using: &random))
        case 2: .integer([.min, .max, -1, 0].randomElement(using: &random)!)
        case 3: .unsigned([.max, .max - 1, 1 << 63, random.next()].randomElement(using: &random)!)
        case 4: .decimal([0, 0.25, 5e-05, 1e300, .nan, -.infinity, 1 / 3].randomElement(using: &random)!)
        case 5: .string(words.randomElement(using: &random)!)
        case 6:
            .array(
                (0..<Int.random(in: 0...4, using: &random)).map { _ in Self.random(&random, depth: depth - 1)
                }
            )
        default:
            .object(
                (0..<Int.random(in: 0...4, using: &random)).map { number in
                    (
                        "\(words.randomElement(using: &random)!)\(number)",
                        Self.random(&random, depth: depth - 1)
                    )
                })
        }
    }
    static let words = ["", "a b", "\"\\/", "\n\t\r\u{1}\u{1F}\u{7F}", "é€𝄞", "{\"a\": [1, 2]}", "null"]

    /// As Foundation sees it: numbers by their digits, which no `Double` has of large ones.
    private static func isSame(_ value: JSONValue, _ read: Any) -> Bool {
        switch value {
        case .null: read is NSNull
        case .boolean(let flag): read as? Bool == flag
        case .integer(let number): (read as? NSNumber)?.int64Value == number
        case .unsigned(let number): (read as? NSNumber)?.uint64Value == number
        case .decimal(let number):
            number.isFinite ? (read as? NSNumber)?.doubleValue == number : read is NSNull
        case .string(let text): read as? String == text
        case .array(let values):
            (read as? [Any]).map { found in
                found.count == values.count && zip(values, found).allSatisfy { isSame($0, $1) }
            } ?? false
        case .object(let pairs):
            (read as? [String: Any]).map { members in
                members.count == pairs.count
                    && pairs.allSatisfy { pair in members[pair.key].map { isSame(pair.value, $0) } ?? false }
            } ?? false
        }
    }

    @Test func foundationReadsWhatIsWritten() throws {
        var generator = SeededGenerator(for: "JSON")
        for _ in 0..<1000 {
            let value = Self.random(&generator, depth: 4)
            for levels in [.max, 0, 1, 2] {
                let text = value.text(levels: levels)
                let read = try JSONSerialization.jsonObject(
                    with: Data(text.utf8), options: .fragmentsAllowed)
                #expect(Self.isSame(value, read), "\(text)")
            }
        }
    }

    @Test func levelsBelowStandInOneLine() {
        let value = JSONValue.object([
            ("a", .array([.integer(1), .object([("b", .null), ("c", .array([]))])])), ("d", .object([])),
        ])
        #expect(value.text(levels: 0) == #"{"a": [1, {"b": null, "c": []}], "d": {}}"#)
        #expect(value.text(levels: 1) == "{\n  \"a\": [1, {\"b\": null, \"c\": []}],\n  \"d\": {}\n}")
        #expect(
            value.text(levels: 2)
                == "{\n  \"a\": [\n    1,\n    {\"b\": null, \"c\": []}\n  ],\n  \"d\": {}\n}")
    }
}
