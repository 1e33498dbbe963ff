package import LinuxHost

/// Names a session, to the client that was given it and to nobody else: 128 random bits of the welcome.
package struct SessionToken: Hashable {
    package static let size = 16
    /// Tokens in one batch.
    package static let limit = 64
    package let low: UInt64
    package let high: UInt64

    package init(low: UInt64, high: UInt64) { (self.low, self.high) = (low, high) }
    package static func random() throws(LinuxError) -> SessionToken {
        SessionToken(low: try randomWord(), high: try randomWord())
    }
}

extension WireWriter {
    package mutating func put(_ token: SessionToken) {
        put(token.low)
        put(token.high)
    }
}
extension WireReader {
    package mutating func token() -> SessionToken? {
        guard let low = take(UInt64.self), let high = take(UInt64.self) else { return nil }
        return SessionToken(low: low, high: high)
    }
}
