/// The settings of a terminal as they were before a guest put it into raw mode.
///
/// The VMM writes them to `terminal/NAME` of the state directory and keeps the file locked. If it is killed it cannot
/// put the terminal back, so the next `mingle` on that terminal finds the file unlocked, puts the settings back and
/// empties it.
public struct SavedTerminal: Equatable, Sendable {
    /// The terminal's device, such as `/dev/pts/3`.
    public var device: String
    /// The VMM that saved the settings.
    public var owner: Int32
    /// The bytes of `struct termios` as the C library of this machine lays it out.
    public var settings: [UInt8]

    public init(device: String, owner: Int32, settings: [UInt8]) {
        self.device = device
        self.owner = owner
        self.settings = settings
    }

    /// The name of a terminal's file: the device's path without its first slash, every other slash turned into `-`.
    public static func fileName(device: String) -> String {
        let path = device.hasPrefix("/") ? device.dropFirst() : device[...]
        return String(path.map { $0 == "/" ? "-" : $0 })
    }

    /// Reads the text of a file: lines `tty=`, `owner_pid=` and `termios=`, the last in hexadecimal digits.
    /// - Returns: nil when it is none. How many bytes there are is for the reader to check.
    public init?(text: String) {
        let values = KeyValueText(parsing: text)
        guard let device = values["tty"], let owner = values.number("owner_pid", as: Int32.self),
            let settings = values["termios"].flatMap(Self.bytes(hexadecimal:))
        else { return nil }
        self.init(device: device, owner: owner, settings: settings)
    }

    /// The text of the file.
    public var text: String {
        KeyValueText.text([
            ("tty", device), ("owner_pid", "\(owner)"), ("termios", Self.hexadecimal(settings)),
        ])
    }

    static func hexadecimal(_ bytes: [UInt8]) -> String {
        bytes.map { ($0 < 16 ? "0" : "") + String($0, radix: 16) }.joined()
    }

    static func bytes(hexadecimal text: String) -> [UInt8]? {
        let digits = Array(text.utf8)
        guard digits.count.isMultiple(of: 2) else { return nil }
        var bytes: [UInt8] = []
        for index in stride(from: 0, to: digits.count, by: 2) {
            guard let high = Character(UnicodeScalar(digits[index])).hexDigitValue,
                let low = Character(UnicodeScalar(digits[index + 1])).hexDigitValue
            else { return nil }
            bytes.append(UInt8(high << 4 | low))
        }
        return bytes
    }
}
