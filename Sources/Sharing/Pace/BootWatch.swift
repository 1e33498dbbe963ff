internal import GuestMemory

/// Whether a guest still boots. Most of what it holds then is written again soon, and every look at it delays it.
///
/// ```
///  booting --says that it is ready | rests for a second | has had a minute of CPU time--> over
/// ```
struct BootWatch {
    /// Nanoseconds.
    private static let rest: UInt64 = 1_000_000_000
    /// CPU time, so that it is as long on a crowded host.
    private static let limit: UInt64 = 60_000_000_000
    /// A guest that has not even begun does not rest.
    private static let beginning: UInt64 = 20_000_000

    private(set) var isOver = false
    private var rested: UInt64 = 0

    /// - Parameters:
    ///   - isReady: the guest said so.
    ///   - load: of the time since the last call.
    ///   - running: CPU time of its vCPUs since its start, nanoseconds.
    mutating func take(isReady: Bool, load: GuestLoad?, running: UInt64) {
        if isReady || running >= Self.limit { isOver = true }
        guard !isOver, let load, running >= Self.beginning else { return }
        rested = load.isResting ? rested + load.nanoseconds : 0
        if rested >= Self.rest { isOver = true }
    }
}
