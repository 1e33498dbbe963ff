#if DEBUG
    internal import Glibc

    /// What is to go wrong, so that tests can show that they would notice. There is no trace of it in release builds.
    ///
    /// Words, separated by commas:
    /// - `no-protection`: windows do not keep writers out. Of all that a window does, only the call that protects
    ///   (UFFDIO_WRITEPROTECT), or the pause, is left out.
    /// - `widen=N`: N microseconds pass between the comparison and the new mapping.
    /// - `arrange`: no fault, but mappings are arranged all the time, however busy the guest is.
    /// - `eager`: no fault either, but pages are looked at whatever that costs the guest.
    /// - `stop-at=STEP:N`: the process kills itself when it reaches a step (``MergeStep``) for the Nth time.
    public struct FaultInjection: Equatable, Sendable {
        public private(set) var leavesUnprotected = false
        public private(set) var arrangesAlways = false
        public private(set) var looksAlways = false
        private var microseconds: UInt32 = 0
        private var lastStep: MergeStep?
        private var left = 0

        /// - Returns: nil when the words are none of the above.
        public init?(_ words: String) {
            if words.isEmpty { return nil }
            for word in words.split(separator: ",") {
                let parts = word.split(separator: "=", maxSplits: 1).map(String.init)
                switch (parts[0], parts.dropFirst().first) {
                case ("no-protection", nil): leavesUnprotected = true
                case ("arrange", nil): arrangesAlways = true
                case ("eager", nil): looksAlways = true
                case ("widen", let value?):
                    guard let number = UInt32(value), number < 1_000_000 else { return nil }
                    microseconds = number
                case ("stop-at", let value?):
                    let place = value.split(separator: ":").map(String.init)
                    guard place.count == 2, let step = MergeStep(rawValue: place[0]),
                        let count = Int(place[1]),
                        count > 0
                    else { return nil }
                    (lastStep, left) = (step, count)
                default: return nil
                }
            }
        }

        /// On the sharing thread, also in windows.
        mutating func reached(_ step: MergeStep) {
            if step == .compared, microseconds > 0 { usleep(microseconds) }
            guard step == lastStep else { return }
            left -= 1
            if left == 0 { kill(getpid(), SIGKILL) }
        }
    }
#endif
