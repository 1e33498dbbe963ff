import FrameStore

/// What one guest was told by brokers over the connections that it had: it outlives each ``BrokerStore``. Used by the thread
/// that uses the stores.
///
/// A guest that moved over from earlier connections names them by their tokens, which only it was given.
public final class SessionHistory {
    /// Oldest first.
    private var tokens: [SessionToken] = []

    public init() {}

    func begin(_ token: SessionToken) {
        // Of older ones the broker keeps the references until this process ends.
        if tokens.count > SessionToken.limit { tokens.removeFirst() }
        tokens.append(token)
    }

    /// Those that began before `token` did.
    func earlier(than token: SessionToken) -> [SessionToken] {
        Array(tokens.prefix { $0 != token }.suffix(SessionToken.limit))
    }

    /// The broker has heard of them.
    func end(_ ended: [SessionToken]) { tokens.removeAll { ended.contains($0) } }
}
