import LinuxHost

#if DEBUG
    internal import CLinux
    internal import GuestMemory
    internal import Glibc
    internal import Synchronization

    /// What is to go wrong, so that tests can show that they would notice. There is no trace of it in release builds.
    ///
    /// Words, separated by commas:
    /// - `no-protection`: windows do not keep writers out. Of all that a window does, only the call that protects
    ///   (UFFDIO_WRITEPROTECT), or the pause, is left out.
    /// - `widen=N`: N microseconds pass between the comparison and the new mapping.
    /// - `arrange`: no fault, but mappings are arranged all the time, however busy the guest is.
    /// - `eager`: no fault either, but pages are looked at whatever that costs the guest.
    /// - `fail-mappings=N`: one call in N that replaces a mapping fails and changes nothing; `lose-mappings=N`: what was mapped is
    ///   gone then, as on kernels before 6.12.
    /// - `crowd-after=N`: once N pages were merged, the process makes mappings until it has as many as it may, and goes on with that.
    /// - `attempt=KIND:NAME`: once it is confined, a thread of that kind tries what no thread may (`Attempt` of mingle-vmm).
    /// - `stop-at=STEP:N`: the process kills itself when it reaches a step (``MergeStep``) for the Nth time.
    public struct FaultInjection: Equatable, Sendable {
        public private(set) var leavesUnprotected = false
        public private(set) var arrangesAlways = false
        public private(set) var looksAlways = false
        public private(set) var attempt: String?
        private var microseconds: UInt32 = 0
        private var mappingsToFail = 0
        private var losesMappings = false
        private var pagesToCrowd = 0
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
                case ("attempt", let value?): attempt = value
                case ("widen", let value?):
                    guard let number = UInt32(value), number < 1_000_000 else { return nil }
                    microseconds = number
                case ("fail-mappings", let value?), ("lose-mappings", let value?):
                    guard let number = Int(value), number > 1 else { return nil }
                    (mappingsToFail, losesMappings) = (number, parts[0] == "lose-mappings")
                case ("crowd-after", let value?):
                    guard let number = Int(value), number > 0 else { return nil }
                    pagesToCrowd = number
                    MappingCrowd.prepare()
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

        /// The kernel's calls, but for those that are to fail.
        package var calls: MappingCalls {
            if mappingsToFail == 0 { return .kernel }
            return .kernel.failing(every: mappingsToFail, after: losesMappings)
        }

        /// After each pass, on the sharing thread.
        mutating func passed(_ merged: Int) {
            guard pagesToCrowd > 0, merged >= pagesToCrowd else { return }
            pagesToCrowd = 0
            MappingCrowd.start()
        }

        /// On the sharing thread, also in windows.
        mutating func reached(_ step: MergeStep) {
            if step == .compared, microseconds > 0 { usleep(microseconds) }
            guard step == lastStep else { return }
            left -= 1
            // To a thread of this process: a confined one may signal no other way.
            if left == 0 { _ = mingle_tgkill(getpid(), mingle_gettid(), SIGKILL) }
        }
    }

    extension MappingCalls {
        /// - Parameter unmapping: what is mapped where a call fails is taken away before.
        func failing(every count: Int, after unmapping: Bool) -> MappingCalls {
            let calls = CallCount()
            @Sendable func fails(_ place: UInt, _ size: Int, _ replaces: Bool) -> Bool {
                // Of each N calls the first or the second, as a fixed pseudo-random sequence says: every Nth may be the same
                // step of each merge for ever. After a failure some calls go well, so that what failed can be repaired.
                let number = calls.next()
                let shift = Int((UInt64(number / count) &* 0x9E37_79B9_7F4A_7C15) >> 63)
                guard number % count == shift else { return false }
                // SAFETY: the caller owns the range, and gave it up for what it wants mapped there.
                if replaces, unmapping { _ = unsafe munmap(UnsafeMutableRawPointer(bitPattern: place), size) }
                return true
            }
            var failing = self
            let (map, move) = (map, move)
            failing.map = { start, size, isAccessible, flags, descriptor, offset in
                fails(start, size, flags & MAP_FIXED == MAP_FIXED)
                    ? ENOMEM : map(start, size, isAccessible, flags, descriptor, offset)
            }
            failing.move = { from, size, target in
                fails(target, size, true) ? ENOMEM : move(from, size, target)
            }
            failing.mayLeaveHoles = mayLeaveHoles || unmapping
            return failing
        }
    }

    private final class CallCount: Sendable {
        private let count = Atomic(0)
        func next() -> Int { count.add(1, ordering: .relaxed).newValue }
    }

    /// Takes all mappings that the process may have.
    private enum MappingCrowd {
        /// Until the process ends.
        private static let thread = Mutex<HostThread?>(nil)
        private static let begins = Monitor(false)

        static func start() { begins.update { $0 = true } }

        /// Makes its thread, which waits: a confined process makes none.
        static func prepare() {
            let new = try? HostThread(name: "crowd") {
                _ = begins.wait { $0 ? true : nil }
                let (page, flags) = (4096, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE)
                let pages = 1 << 17
                // SAFETY: no fixed address; what is changed below is of this mapping alone, which nobody else knows.
                guard let base = unsafe mmap(nil, pages * page, PROT_NONE, flags, -1, 0),
                    unsafe base != MAP_FAILED
                else { return }
                var index = 1
                while index < pages {
                    // Each one takes two mappings more.
                    if unsafe mprotect(base + index * page, page, PROT_READ) == 0 {
                        index += 2
                    } else {
                        usleep(10_000)
                    }
                }
            }
            thread.withLock { $0 = new }
        }
    }
#endif
