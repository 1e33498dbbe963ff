internal import FoundationEssentials
public import VMMProtocol

extension JSONObject {
    /// Reads a JSON document; nil when it is none, or none of these.
    public init?(json text: String) {
        guard let found = try? JSONDecoder().decode(Document<Self>.self, from: Data(text.utf8)) else {
            return nil
        }
        self = found.object
    }
}

private struct Document<Object: JSONObject>: Decodable {
    var object = Object()

    init(from decoder: any Decoder) throws {
        let reader = JSONReader(try decoder.container(keyedBy: Key.self))
        object.visit(reader)
        if let failure = reader.failure { throw failure }
    }
}

private struct Key: CodingKey {
    let stringValue: String
    var intValue: Int? { nil }
    init(stringValue: String) { self.stringValue = stringValue }
    init?(intValue: Int) { nil }
}

private final class JSONReader: JSONMembers {
    private let members: KeyedDecodingContainer<Key>
    /// The first of what went wrong.
    private(set) var failure: (any Error)?

    init(_ members: KeyedDecodingContainer<Key>) { self.members = members }

    private struct NoSuchWord: Error { let text: String }

    private func read<Value: Decodable>(_ key: String, _ value: inout Value) {
        do { value = try members.decode(Value.self, forKey: Key(stringValue: key)) } catch { note(error) }
    }

    private func readIfPresent<Value: Decodable>(_ key: String) -> Value? {
        do { return try members.decodeIfPresent(Value.self, forKey: Key(stringValue: key)) } catch {
            note(error)
            return nil
        }
    }

    private func note(_ error: any Error) { failure = failure ?? error }

    private func word<Word: RawRepresentable<String>>(_ text: String) -> Word? {
        let word = Word(rawValue: text)
        if word == nil { note(NoSuchWord(text: text)) }
        return word
    }

    func member(_ key: String, _ value: inout Bool) { read(key, &value) }
    func member(_ key: String, _ value: inout UInt64) { read(key, &value) }
    func member(_ key: String, _ value: inout Double) { read(key, &value) }
    func member(_ key: String, _ value: inout String) { read(key, &value) }
    func member<Word: RawRepresentable<String>>(_ key: String, _ value: inout Word) {
        var text = ""
        read(key, &text)
        value = word(text) ?? value
    }
    func member<Object: JSONObject>(_ key: String, _ values: inout [Object]) {
        var found: [Document<Object>] = []
        read(key, &found)
        values = found.map(\.object)
    }
    func optional(_ key: String, _ value: inout UInt64?) { value = readIfPresent(key) }
    func optional(_ key: String, _ value: inout Double?) { value = readIfPresent(key) }
    func optional(_ key: String, _ value: inout String?) { value = readIfPresent(key) }
    func optional<Word: RawRepresentable<String>>(_ key: String, _ value: inout Word?) {
        value = readIfPresent(key).flatMap { word($0) }
    }
    func optional<Object: JSONObject>(_ key: String, _ value: inout Object?) {
        let found: Document<Object>? = readIfPresent(key)
        value = found?.object
    }
    func new(_ key: String, _ value: inout Bool) { value = readIfPresent(key) ?? value }
    func new(_ key: String, _ value: inout UInt64) { value = readIfPresent(key) ?? value }
}

extension GuestStatistics: Equatable {
    public static func == (left: Self, right: Self) -> Bool { left.json == right.json }
}
extension SharingFigures: Equatable {
    public static func == (left: Self, right: Self) -> Bool { left.json == right.json }
}
extension GuestReport: Equatable {
    public static func == (left: Self, right: Self) -> Bool { left.json == right.json }
}
