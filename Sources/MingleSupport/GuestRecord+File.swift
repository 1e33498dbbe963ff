public import VMMProtocol

extension GuestRecord {
    /// Reads the text of a record file. `path` is only for the error.
    public init(text: String, path: String) throws(SupportError) {
        do throws(Malformed) { try self.init(text: text) } catch {
            throw .malformedRecord(path: path, reason: error.reason)
        }
    }
}
