internal import GuestMemory

// At the limits of the process: what cannot be done now is put off and counted, before it has begun.
extension SharingEngine {
    /// What else the process maps is counted after so long, nanoseconds, or after so many times what the counting took.
    private static let countInterval: UInt64 = 10_000_000_000
    private static let countShare: UInt64 = 200

    /// Whether there is heap for what is about to begin; if not, it is put off.
    func hasMemory(for work: SharingWork) -> Bool {
        if mapping.hasMemory(for: work) { return true }
        statistics.putOffNoMemory += 1
        return false
    }

    /// The store hears from us all the same, if a word can be had.
    func putPassOff() -> PassResult {
        keepInTouch()
        return PassResult()
    }

    /// Whether so many mappings more may be made; if not, what they are for is put off.
    func hasRoom(for growth: Int) -> Bool {
        if records.seams + surplus + growth < min(policy.mappingLimit, mappingsAllowed) { return true }
        statistics.putOffNoMapping += 1
        return false
    }

    /// Asks the kernel how many mappings there really are: when many were made since the last time, and now and then for what
    /// others made.
    func countMappings() {
        let difference = abs(records.seams - countedAt)
        guard difference >= 256 || difference * 8 > records.seams || monotonicClock() >= nextCount else {
            return
        }
        recountMappings()
    }

    func recountMappings() {
        let started = monotonicClock()
        countedAt = records.seams
        if let count = mapping.countMappings() {
            surplus = max(0, count.guest - 1 - records.seams)
            mappingsAllowed = count.most
        }
        let now = monotonicClock()
        nextCount = now + max(Self.countInterval, (now - started) * Self.countShare)
    }

    /// A mapping could not be made. In a window, so nothing is allocated and nothing read.
    func note(_ failure: MappingFailure) {
        statistics.putOffNoMapping += 1
        // There may be no more to be had: nothing further is tried before they are counted.
        (mappingsAllowed, nextCount) = (0, 0)
        switch failure {
        case .unchanged: break
        case .wentHome(let pages, _): noteFallenHome(pages)
        case .destroyed: fatal = failure
        }
    }
}
