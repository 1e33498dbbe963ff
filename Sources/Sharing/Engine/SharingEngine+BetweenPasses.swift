internal import FrameStore

// What the engine does when it makes no pass: it hears and says what cannot wait, or takes everything home.
extension SharingEngine {
    /// How often to look between passes whether the store asks for a word; nanoseconds.
    static let noticeInterval: UInt64 = 5_000_000_000

    /// Merges what others published meanwhile. While guests that hold the same begin to share, there are such promotions all
    /// the time, long before the store would say so. This is no pass: nothing is harvested, looked at or arranged.
    public func pollPromotions() {
        guard policy.isEnabled, !policy.holdsMerges, fatal == nil, budget.hasMemory(for: .pass) else {
            return keepInTouch()
        }
        let started = clock()
        merge(link.takeKept())
        while let reply = link.ask(.forPromotionsOnly) {
            merge(link.hits(of: reply.promotions))
            if !reply.hasMore { break }
        }
        link.sendRemovals(merge: merge)
        journal.flush()
        updateStatistics(since: started)
    }

    /// Speaks to the store if it asks for it, so that it does not take this client for lost, nor waits for it to free frames.
    public func keepInTouch() {
        if link.isKeepaliveDue { sendKeepalive() }
    }

    /// Speaks to the store, whether or not it asks for it. What it says is merged later.
    func sendKeepalive() {
        guard budget.hasMemory(for: .talk) else { return }
        link.sendKeepalive()
        if !policy.isEnabled { merge(link.takeKept()) }
    }

    /// Takes up to `limit` pages home, of all that are not; for turning sharing off, with a policy that says so. When
    /// none is left, the store forgets this guest.
    /// - Returns: whether any are left.
    public func goHome(limit: Int) -> Bool {
        guard budget.hasMemory(for: .pass) else {
            keepInTouch()
            return true
        }
        let isLast = rehomer.goHome(limit: limit)
        link.sendRemovals(merge: merge)
        if isLast {
            // What an earlier connection counted is mapped no more, either.
            link.tellMovedOver()
            // Frames are freed when every client has spoken once more.
            sendKeepalive()
        }
        journal.flush()
        refreshStatistics()
        return fatal == nil && !isLast
    }

    // MARK: for the pace of the sharing thread

    /// An earlier connection's references have to be given back, and there is no store to be told.
    var mustReconnect: Bool { link.mustReconnect }
}
