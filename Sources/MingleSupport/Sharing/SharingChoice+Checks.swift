internal import FrameStore
public import VMMProtocol

extension SharingChoice {
    /// Checks the name of a domain and gives it back.
    public static func domain(_ text: String) throws(SupportError) -> String {
        let reserved = BrokerProtocol.privatePrefix
        guard !text.hasPrefix(reserved) else {
            throw .requirement(
                problem: "'\(text)' cannot name a domain: the broker calls the domains of single guests so",
                advice: "use a name that does not begin with '\(reserved)', or leave --domain out")
        }
        guard BrokerProtocol.isName(text) else {
            throw .requirement(
                problem: "'\(text)' cannot name a domain",
                advice: "use 1 to \(BrokerProtocol.nameLimit) letters, digits, '.', '_', ':' and '-'")
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
