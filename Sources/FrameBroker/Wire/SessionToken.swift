internal import GuestMemory
internal import LinuxHost

/// Names a session, to the client that was given it and to nobody else: 128 random bits of the welcome.
struct SessionToken: Hashable {
    static let size = 16
    /// Tokens in one batch.
    static let limit = 64
    let low: UInt64
    let high: UInt64

    init(low: UInt64, high: UInt64) { (self.low, self.high) = (low, high) }
    static func random() throws(LinuxError) -> SessionToken {
        SessionToken(low: try randomWord(), high: try randomWord())
    }
}

extension WireWriter {
    mutating func put(_ token: SessionToken) {
        put(token.low)
        put(token.high)
    }
}
extension WireReader {
    mutating func token() -> SessionToken? {
        guard let low = take(UInt64.self), let high = take(UInt64.self) else { return nil }
        return SessionToken(low: low, high: high)
    }
}
