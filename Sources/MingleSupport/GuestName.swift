public import VMMProtocol

extension GuestName {
    /// Checks a name and gives it back.
    public static func checked(_ text: String) throws(SupportError) -> String {
        guard isValid(text) else { throw .invalidName(text: text) }
        return text
    }
}
