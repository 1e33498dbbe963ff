import FrameStore

/// What clients say of the CPU time that they use and lack, for all to hear.
struct PaceBoard<Process: Hashable> {
    /// Who asked for nothing for so long takes no share; what was said before that long is not believed any more. Nanoseconds.
    private static var sharerMemory: UInt64 { 3_000_000_000 }
    private static var waitingMemory: UInt64 { 2_500_000_000 }
    /// How long an answer stays good.
    private static var freshness: UInt64 { 20_000_000 }
    /// All of the time, in thousandths.
    private static var always: UInt16 { 1000 }

    private struct Entry {
        var process: Process
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
    ///   - process: that of the client: however many connections it has, it takes one share.
    ///   - asks: the batch asks for something.
    ///   - now: monotonic nanoseconds.
    mutating func note(_ client: UInt32, of process: Process, waiting: UInt16, asks: Bool, _ now: UInt64) {
        var entry = entries[client] ?? Entry(process: process)
        if asks { entry.asked = now }
        entry.spoke = now
        entry.waiting = min(waiting, Self.always)
        entries[client] = entry
    }

    /// The client is gone.
    mutating func remove(_ client: UInt32) { entries[client] = nil }

    /// What is so now.
    mutating func market(_ now: UInt64) -> StoreMarket {
        if let madeAt, now < madeAt + Self.freshness { return market }
        madeAt = now
        market = StoreMarket()
        var sharers: Set<Process> = []
        for entry in entries.values {
            if entry.asked > 0, now < entry.asked + Self.sharerMemory { sharers.insert(entry.process) }
            if now < entry.spoke + Self.waitingMemory { market.waiting = max(market.waiting, entry.waiting) }
        }
        market.sharers = UInt16(clamping: max(sharers.count, 1))
        return market
    }
}
