import FrameStore

/// What clients say of the CPU time that they use and lack, for all to hear.
struct PaceBoard {
    /// Who asked for nothing for so long takes no share; what was said before that long is not believed any more. Nanoseconds.
    private static let sharerMemory: UInt64 = 3_000_000_000
    private static let waitingMemory: UInt64 = 2_500_000_000
    /// How long an answer stays good.
    private static let freshness: UInt64 = 20_000_000

    private struct Entry {
        var asked: UInt64 = 0
        var spoke: UInt64 = 0
        var waiting: UInt16 = 0
    }
    private var entries: [UInt32: Entry] = [:]
    private var market = StoreMarket()
    private var madeAt: UInt64?

    /// A batch came.
    /// - Parameters:
    ///   - client: its session's number.
    ///   - asks: the batch asks for something.
    ///   - now: monotonic nanoseconds.
    mutating func note(_ client: UInt32, waiting: UInt16, asks: Bool, _ now: UInt64) {
        var entry = entries[client] ?? Entry()
        if asks { entry.asked = now }
        entry.spoke = now
        entry.waiting = waiting
        entries[client] = entry
    }

    /// The client is gone.
    mutating func remove(_ client: UInt32) { entries[client] = nil }

    /// What is so now.
    mutating func market(_ now: UInt64) -> StoreMarket {
        if let madeAt, now < madeAt + Self.freshness { return market }
        madeAt = now
        market = StoreMarket()
        var sharers = 0
        for entry in entries.values {
            if entry.asked > 0, now < entry.asked + Self.sharerMemory { sharers += 1 }
            if now < entry.spoke + Self.waitingMemory { market.waiting = max(market.waiting, entry.waiting) }
        }
        market.sharers = UInt16(clamping: max(sharers, 1))
        return market
    }
}
