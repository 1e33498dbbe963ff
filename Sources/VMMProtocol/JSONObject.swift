/// A JSON object that is written and read by one list, which names each member once.
///
/// It is written here, without Foundation, and read where there is Foundation: by `init(json:)` of MingleSupport.
/// Members that are not known are ignored, so that a newer VMM may say more.
public protocol JSONObject {
    /// As it is before anything of it was read.
    init()
    /// Names its members, in the order in which they are written.
    mutating func visit(_ members: any JSONMembers)
}

/// Goes over the members of an object, to write them or to read them.
///
/// A `member` has to be there. One that is `optional` is null, or is not there, when the property is nil. One that
/// is `new` is not written by VMMs of older versions, and the property then stays as it is. No method is generic
/// where it need not be: each type would make the VMM larger.
public protocol JSONMembers: AnyObject {
    func member(_ key: String, _ value: inout Bool)
    func member(_ key: String, _ value: inout UInt64)
    func member(_ key: String, _ value: inout Double)
    func member(_ key: String, _ value: inout String)
    func member<Word: RawRepresentable<String>>(_ key: String, _ value: inout Word)
    func member<Object: JSONObject>(_ key: String, _ values: inout [Object])
    func optional(_ key: String, _ value: inout UInt64?)
    func optional(_ key: String, _ value: inout Double?)
    func optional(_ key: String, _ value: inout String?)
    func optional<Word: RawRepresentable<String>>(_ key: String, _ value: inout Word?)
    func optional<Object: JSONObject>(_ key: String, _ value: inout Object?)
    func new(_ key: String, _ value: inout Bool)
    func new(_ key: String, _ value: inout UInt64)
}

extension JSONObject {
    public var json: JSONValue { .object(pairs { $0.visit($1) }) }

    /// The members that `visit` names, for another object that tells the same.
    public func pairs(_ visit: (inout Self, any JSONMembers) -> Void) -> [(key: String, value: JSONValue)] {
        var copy = self
        let writer = JSONWriter()
        visit(&copy, writer)
        return writer.pairs
    }
}

private final class JSONWriter: JSONMembers {
    var pairs: [(key: String, value: JSONValue)] = []

    private func add(_ key: String, _ value: JSONValue) { pairs.append((key, value)) }

    func member(_ key: String, _ value: inout Bool) { add(key, .boolean(value)) }
    func member(_ key: String, _ value: inout UInt64) { add(key, .unsigned(value)) }
    func member(_ key: String, _ value: inout Double) { add(key, .decimal(value)) }
    func member(_ key: String, _ value: inout String) { add(key, .string(value)) }
    func member<Word: RawRepresentable<String>>(_ key: String, _ value: inout Word) {
        add(key, .string(value.rawValue))
    }
    func member<Object: JSONObject>(_ key: String, _ values: inout [Object]) {
        add(key, .array(values.map(\.json)))
    }
    func optional(_ key: String, _ value: inout UInt64?) { add(key, .optional(value)) }
    func optional(_ key: String, _ value: inout Double?) { add(key, .optional(value)) }
    func optional(_ key: String, _ value: inout String?) { add(key, .optional(value)) }
    func optional<Word: RawRepresentable<String>>(_ key: String, _ value: inout Word?) {
        add(key, .optional(value?.rawValue))
    }
    func optional<Object: JSONObject>(_ key: String, _ value: inout Object?) {
        add(key, value?.json ?? .null)
    }
    func new(_ key: String, _ value: inout Bool) { member(key, &value) }
    func new(_ key: String, _ value: inout UInt64) { member(key, &value) }
}
