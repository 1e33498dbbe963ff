/// The rules for names of guests. A name is also a file name in the state directory.
public enum GuestName {
    /// The longest name, in bytes.
    public static let maximumLength = 64

    /// Whether a guest may be called so: letters, digits, and behind the first also `.`, `_` and `-`.
    public static func isValid(_ text: String) -> Bool {
        let bytes = Array(text.utf8)
        guard (1...maximumLength).contains(bytes.count), let first = bytes.first else { return false }
        return isAlphanumeric(first) && bytes.allSatisfy { isAlphanumeric($0) || "._-".utf8.contains($0) }
    }

    /// The name of a guest that was given none.
    public static func standard(process: Int32) -> String { "guest-\(process)" }

    private static func isAlphanumeric(_ byte: UInt8) -> Bool {
        switch byte {
        case UInt8(ascii: "a")...UInt8(ascii: "z"), UInt8(ascii: "A")...UInt8(ascii: "Z"),
            UInt8(ascii: "0")...UInt8(ascii: "9"):
            true
        default: false
        }
    }
}
