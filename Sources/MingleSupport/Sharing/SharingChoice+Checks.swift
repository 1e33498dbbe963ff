public import VMMProtocol

extension SharingChoice {
    /// Checks the name of a domain and gives it back.
    public static func domain(_ text: String) throws(SupportError) -> String {
        let isName =
            (1...64).contains(text.utf8.count)
            && text.utf8.allSatisfy { byte in
                switch byte {
                case UInt8(ascii: "a")...UInt8(ascii: "z"), UInt8(ascii: "A")...UInt8(ascii: "Z"),
                    UInt8(ascii: "0")...UInt8(ascii: "9"):
                    true
                default: "._:-".utf8.contains(byte)
                }
            }
        guard isName else {
            throw .requirement(
                problem: "'\(text)' cannot name a domain",
                advice: "use 1 to 64 letters, digits, '.', '_', ':' and '-'")
        }
        guard !text.hasPrefix("private.") else {
            throw .requirement(
                problem: "'\(text)' cannot name a domain: the broker calls the domains of single guests so",
                advice: "use a name that does not begin with 'private.', or leave --domain out")
        }
        return text
    }

    /// Reads a share of one CPU: a percentage, with or without its sign.
    public static func percent(_ text: String) throws(SupportError) -> Double {
        guard let number = percentage(text) else {
            throw .requirement(
                problem: "'\(text)' is no share of a CPU",
                advice: "use a percentage above 0 and up to 100, such as 25%")
        }
        return number
    }
}
