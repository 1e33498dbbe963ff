import FrameStore
import VMMProtocol

/// What to tell people of a guest's store: pure. Each change is said once, and what passes by itself not at all.
struct SharingNews {
    /// For how long attempts may fail before it is said, nanoseconds: a broker that is started again answers before that.
    static let patience: UInt64 = 2_000_000_000

    private let guest: String
    private let window: String
    private var hadStore = false
    private var failingSince: UInt64?
    /// What was said last of why it does not share, and when.
    private var said: String?
    private var saidAt: UInt64 = 0
    /// The least time between two reasons, nanoseconds: they may come in turns.
    static let pause: UInt64 = 60_000_000_000

    init(guest: String, window: String) {
        self.guest = guest
        self.window = window
    }

    /// The guest has a store.
    /// - Parameter domain: as people know it.
    mutating func connected(domain: String) -> (LogLevel, String)? {
        defer {
            hadStore = true
            failingSince = nil
            said = nil
        }
        if hadStore, said == nil { return nil }
        // Who was warned shall hear that it is over.
        let level: LogLevel = said == nil ? .info : .warning
        return (
            level, "\(guest) shares memory\(said == nil ? "" : " now"): domain \(domain), window \(window)"
        )
    }

    /// An attempt to get one failed.
    /// - Parameter now: monotonic nanoseconds.
    mutating func failed(_ error: BrokerError, now: UInt64) -> (LogLevel, String)? {
        let since = failingSince ?? now
        failingSince = since
        let passes = if case .refused(let reason, _) = error { reason == .busy } else { true }
        if passes, now - since < Self.patience { return nil }
        let reason = "\(error)"
        guard reason != said, said == nil || now - saidAt >= Self.pause else { return nil }
        said = reason
        saidAt = now
        return (
            .warning,
            "\(guest) does not share memory, but for pages of zeros: \(reason). It tries again every now and then"
        )
    }
}
