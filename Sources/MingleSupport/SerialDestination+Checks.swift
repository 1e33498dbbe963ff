public import VMMProtocol

extension SerialDestination {
    /// Reads `stdio`, `none` or `file:PATH`.
    public static func checked(_ text: String) throws(SupportError) -> SerialDestination {
        guard let destination = SerialDestination(text) else { throw .invalidSerial(text: text) }
        return destination
    }
}
