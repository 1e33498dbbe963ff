// Numbers are little-endian, lists are preceded by their counts, and a message is exactly as long as its counts say.

/// Builds a message.
package struct WireWriter {
    package private(set) var bytes: [UInt8] = []
    package init(_ kind: MessageKind, capacity: Int = 64) {
        bytes.reserveCapacity(capacity)
        bytes.append(kind.rawValue)
    }
    package mutating func put<Number: FixedWidthInteger>(_ number: Number) {
        for byte in 0..<MemoryLayout<Number>.size {
            bytes.append(UInt8(truncatingIfNeeded: number >> (byte * 8)))
        }
    }
    package mutating func put(_ list: [UInt8]) { bytes.append(contentsOf: list) }
    /// At most 255 bytes of UTF-8.
    package mutating func put(_ text: String) {
        let utf8 = Array(text.utf8.prefix(255))
        put(UInt8(utf8.count))
        put(utf8)
    }
}

/// Takes a message apart; nil from the first number on that is not there.
package struct WireReader {
    private let bytes: [UInt8]
    private(set) var position = 0
    package init(_ bytes: [UInt8]) { self.bytes = bytes }
    package var left: Int { bytes.count - position }

    package mutating func take<Number: FixedWidthInteger>(_ type: Number.Type) -> Number? {
        let size = MemoryLayout<Number>.size
        guard left >= size else { return nil }
        defer { position += size }
        var number: Number = 0
        for byte in 0..<size { number |= Number(truncatingIfNeeded: bytes[position + byte]) << (byte * 8) }
        return number
    }
    package mutating func take(count: Int) -> [UInt8]? {
        guard count >= 0, left >= count else { return nil }
        defer { position += count }
        return Array(bytes[position..<position + count])
    }
    /// A text of printable ASCII.
    package mutating func text() -> String? {
        guard let count = take(UInt8.self), let utf8 = take(count: Int(count)),
            utf8.allSatisfy({ $0 >= 0x20 && $0 < 0x7f })
        else { return nil }
        return String(decoding: utf8, as: UTF8.self)
    }
    /// A list of exactly so many elements, none when there are not enough bytes for them.
    package mutating func list<Element>(
        count: UInt32, elementSize: Int, _ element: (inout WireReader) -> Element?
    ) -> [Element]? {
        guard Int(count) * elementSize <= left else { return nil }
        var list: [Element] = []
        list.reserveCapacity(Int(count))
        for _ in 0..<count {
            guard let next = element(&self) else { return nil }
            list.append(next)
        }
        return list
    }
}

package enum MessageKind: UInt8 {
    case hello = 1
    case observe = 2
    case batch = 3
    case statistics = 4
    case goodbye = 5
    case welcome = 129
    case refusal = 130
    case reply = 131
    case figures = 132
    case notice = 133
}

/// What both ends must agree on.
public enum BrokerProtocol {
    public static let version: UInt16 = 5
    package static let magic: UInt32 = 0x4c47_4e4d  // "MNGL"
    /// Bytes of a message, both ways.
    package static let messageLimit = 128 << 10
    /// Bytes of a domain's name.
    public static let nameLimit = 64
    /// Names the program that speaks, for people.
    package static let build = "mingle broker protocol 5"

    /// What names of domains of one guest begin with, which the broker chooses.
    package static let privatePrefix = "private."

    /// Whether a user may choose this name for a domain: 1 to 64 letters, digits, and `. _ - :` within, not starting
    /// with ``privatePrefix``.
    public static func isName(_ name: String) -> Bool {
        let bytes = Array(name.utf8)
        guard !bytes.isEmpty, bytes.count <= nameLimit, !name.hasPrefix(privatePrefix)
        else { return false }
        return bytes.allSatisfy { byte in
            switch byte {
            case UInt8(ascii: "a")...UInt8(ascii: "z"), UInt8(ascii: "A")...UInt8(ascii: "Z"),
                UInt8(ascii: "0")...UInt8(ascii: "9"):
                true
            case UInt8(ascii: "."), UInt8(ascii: "_"), UInt8(ascii: "-"), UInt8(ascii: ":"): true
            default: false
            }
        }
    }
}
