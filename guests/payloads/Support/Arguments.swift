/// The words of the argument string, one after another: `key=value`, separated by blanks. A key given twice
/// counts with its last value.
///
/// A payload goes through all of them and calls `refuse` for a key that it does not know, so that a misspelt
/// experiment ends (code 2) instead of measuring something else.
public struct Arguments {
    private let guest: Guest
    private var rest: Text

    public init(_ guest: Guest) {
        self.guest = guest
        rest = guest.arguments
    }

    public mutating func next() -> Argument? {
        let (word, rest) = self.rest.firstWord()
        self.rest = rest
        if word.count == 0 { return nil }
        guard let (key, value) = word.split(at: 0x3D) else {
            guest.fail("argument \(quoted: word): expected key=value")
        }
        return Argument(guest: guest, key: key, value: value)
    }
}

/// One argument. Its readers end the guest with a message when the value is not what they expect.
public struct Argument {
    let guest: Guest
    public let key: Text
    public let value: Text

    public func decimal(in range: ClosedRange<UInt64>) -> UInt64 {
        guard let number = value.decimal, range.contains(number) else {
            refuse("a number from \(range.lowerBound) to \(range.upperBound)")
        }
        return number
    }

    public func hexadecimal(in range: ClosedRange<UInt64>) -> UInt64 {
        guard let number = value.hexadecimal, range.contains(number) else {
            refuse("a hexadecimal number from \(hex: range.lowerBound) to \(hex: range.upperBound)")
        }
        return number
    }

    /// A fraction from 0 to 1, in millionths.
    public func fraction() -> UInt64 {
        guard let millionths = value.millionths else { refuse("a number from 0 to 1") }
        return millionths
    }

    /// Whether the value is the second of two words.
    public func choice(_ first: StaticString, _ second: StaticString) -> Bool {
        if first ~= value { return false }
        guard second ~= value else { refuse("\(first) or \(second)") }
        return true
    }

    /// Ends the guest: the value is not `expected`.
    public func refuse(_ expected: Message) -> Never {
        guest.fail("argument \(quoted: key)=\(quoted: value): expected \(expected)")
    }

    /// Ends the guest: nobody knows this key.
    public func refuseKey() -> Never {
        guest.fail("argument \(quoted: key)=\(quoted: value): no such argument")
    }
}
