import Machine

/// UTF-8 bytes somewhere in memory: an argument, a line that was typed.
public struct Text {
    let address: UInt64
    public let count: UInt64

    subscript(offset: UInt64) -> UInt8 { machine_load8(address + offset) }

    /// The part before the first `separator`, and the part after it; nil if there is no `separator`.
    func split(at separator: UInt8) -> (before: Text, after: Text)? {
        var offset: UInt64 = 0
        while offset < count && self[offset] != separator { offset += 1 }
        if offset == count { return nil }
        return (
            Text(address: address, count: offset),
            Text(address: address + offset + 1, count: count - offset - 1)
        )
    }

    /// The text without the blanks (space, tab, line ends) that it begins with.
    func withoutLeadingBlanks() -> Text {
        var offset: UInt64 = 0
        while offset < count && Text.isBlank(self[offset]) { offset += 1 }
        return Text(address: address + offset, count: count - offset)
    }

    static func isBlank(_ byte: UInt8) -> Bool { byte == 0x20 || (byte >= 0x09 && byte <= 0x0D) }

    /// The first word, and what follows it.
    public func firstWord() -> (word: Text, rest: Text) {
        let text = withoutLeadingBlanks()
        var offset: UInt64 = 0
        while offset < text.count && !Text.isBlank(text[offset]) { offset += 1 }
        return (
            Text(address: text.address, count: offset),
            Text(address: text.address + offset, count: text.count - offset).withoutLeadingBlanks()
        )
    }
}

// MARK: Comparing and reading numbers

extension Text {
    public static func ~= (pattern: StaticString, text: Text) -> Bool {
        guard UInt64(pattern.utf8CodeUnitCount) == text.count else { return false }
        for offset in 0..<text.count where pattern.byte(at: offset) != text[offset] { return false }
        return true
    }

    /// A decimal number without sign; nil if the text is anything else or does not fit.
    public var decimal: UInt64? {
        digits(base: 10)
    }

    /// A hexadecimal number, with or without `0x`.
    public var hexadecimal: UInt64? {
        if count > 2 && self[0] == 0x30 && self[1] | 0x20 == 0x78 {
            return Text(address: address + 2, count: count - 2).digits(base: 16)
        }
        return digits(base: 16)
    }

    /// A number from 0 to 1 such as `0.25`, in millionths; digits beyond the sixth are dropped.
    public var millionths: UInt64? {
        guard let (whole, fraction) = split(at: 0x2E) else {
            guard let whole = decimal, whole <= 1 else { return nil }
            return whole * 1_000_000
        }
        guard whole.count + fraction.count > 0 else { return nil }
        guard let integer = whole.count == 0 ? 0 : whole.decimal, integer <= 1 else { return nil }
        var result = integer
        for offset in 0..<max(6, fraction.count) {
            let digit = offset < fraction.count ? fraction[offset] : 0x30
            guard digit >= 0x30 && digit <= 0x39 else { return nil }
            if offset < 6 { result = result * 10 + UInt64(digit - 0x30) }
        }
        return result <= 1_000_000 ? result : nil
    }

    private func digits(base: UInt64) -> UInt64? {
        if count == 0 { return nil }
        var result: UInt64 = 0
        for offset in 0..<count {
            let byte = self[offset]
            let digit: UInt64
            switch byte {
            case 0x30...0x39: digit = UInt64(byte - 0x30)
            case 0x41...0x46, 0x61...0x66: digit = UInt64((byte | 0x20) - 0x61) + 10
            default: return nil
            }
            if digit >= base { return nil }
            let (product, overflows) = result.multipliedReportingOverflow(by: base)
            let (sum, overflowsToo) = product.addingReportingOverflow(digit)
            if overflows || overflowsToo { return nil }
            result = sum
        }
        return result
    }
}

extension StaticString {
    func byte(at offset: UInt64) -> UInt8 {
        precondition(offset < UInt64(utf8CodeUnitCount))
        // SAFETY: a string's bytes are constants of the image, and the offset was just checked.
        return unsafe utf8Start[Int(offset)]
    }
}
