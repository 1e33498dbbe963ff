/// When to give up on guests that do not come up: by their own time, since a crowded host only makes them slow.
struct BootPatience {
    /// CPU seconds that a guest may take, and seconds in which it must have used some.
    let limit: Double
    let rest: Double
    private var seen: [String: (used: Double, at: Double)] = [:]

    init(limit: Double, rest: Double) {
        self.limit = limit
        self.rest = rest
    }

    /// - Parameters:
    ///   - used: CPU seconds since its start.
    ///   - now: seconds by any clock that does not jump.
    /// - Returns: why it will not come up any more; nil: it may.
    mutating func look(_ guest: String, used: Double, now: Double) -> String? {
        if used >= limit { return "has had \(Int(used)) s of CPU time" }
        guard let last = seen[guest], used < last.used + 0.02 else {
            seen[guest] = (used, now)
            return nil
        }
        return now - last.at >= rest ? "has used no CPU time for \(Int(now - last.at)) s" : nil
    }
}
