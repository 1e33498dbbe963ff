import Machine

/// A line under construction, written as an interpolated string: `"pages=\(count) at \(hex: address)"`.
/// Lives on the stack; what exceeds its 320 bytes is dropped.
public struct Message: ExpressibleByStringInterpolation {
    static let capacity = 320
    var bytes: [320 of UInt8]
    var count: Int

    public init(stringLiteral value: StaticString) {
        var text = StringInterpolation(literalCapacity: 0, interpolationCount: 0)
        text.appendLiteral(value)
        self = text.message
    }

    public init(stringInterpolation: StringInterpolation) {
        self = stringInterpolation.message
    }

    private init() {
        bytes = [320 of UInt8](repeating: 0)
        count = 0
    }

    private mutating func append(_ byte: UInt8) {
        if count < Message.capacity {
            bytes[count] = byte
            count += 1
        }
    }

    public struct StringInterpolation: StringInterpolationProtocol {
        fileprivate var message = Message()

        public init(literalCapacity: Int, interpolationCount: Int) {}

        public mutating func appendLiteral(_ literal: StaticString) {
            for offset in 0..<UInt64(literal.utf8CodeUnitCount) { message.append(literal.byte(at: offset)) }
        }

        public mutating func appendInterpolation(_ text: StaticString) {
            appendLiteral(text)
        }

        /// Bytes that are no printable ASCII appear as `?`.
        public mutating func appendInterpolation(_ text: Text) {
            for offset in 0..<text.count {
                let byte = text[offset]
                message.append(byte >= 0x20 && byte < 0x7F ? byte : 0x3F)
            }
        }

        /// The same, cut after 64 bytes.
        public mutating func appendInterpolation(quoted text: Text) {
            appendInterpolation(Text(address: text.address, count: min(text.count, 64)))
            if text.count > 64 { appendLiteral("...") }
        }

        public mutating func appendInterpolation(_ other: Message) {
            for offset in 0..<other.count { message.append(other.bytes[offset]) }
        }

        /// A number, which must not be negative.
        public mutating func appendInterpolation<Number: FixedWidthInteger>(_ number: Number) {
            precondition(number >= 0)
            appendDigits(UInt64(truncatingIfNeeded: number), base: 10)
        }

        public mutating func appendInterpolation<Number: FixedWidthInteger & UnsignedInteger>(
            hex number: Number
        ) {
            appendLiteral("0x")
            appendDigits(UInt64(truncatingIfNeeded: number), base: 16)
        }

        private mutating func appendDigits(_ number: UInt64, base: UInt64) {
            var divisor: UInt64 = 1
            while number / divisor >= base { divisor *= base }
            while divisor > 0 {
                let digit = UInt8(truncatingIfNeeded: number / divisor % base)
                message.append(digit < 10 ? 0x30 + digit : 0x61 + digit - 10)
                divisor /= base
            }
        }
    }
}
