internal import CLinux
internal import Glibc

/// The clocks of the system, in nanoseconds.
package enum Clock: Sendable {
    /// From 1970 on; it can be set.
    case realtime
    /// Never set.
    case monotonic
    /// Never set; goes on while the host sleeps.
    case boot
    /// CPU time of the calling thread.
    case thread

    package var nanoseconds: UInt64 {
        let number =
            switch self {
            case .realtime: CLOCK_REALTIME
            case .monotonic: CLOCK_MONOTONIC
            case .boot: CLOCK_BOOTTIME
            case .thread: CLOCK_THREAD_CPUTIME_ID
            }
        var time = timespec()
        // SAFETY: fills a live local.
        guard unsafe clock_gettime(number, &time) == 0 else { return 0 }
        return UInt64(clamping: time.tv_sec) &* 1_000_000_000 &+ UInt64(clamping: time.tv_nsec)
    }
}

/// Nanoseconds of the monotonic clock (CLOCK_MONOTONIC).
public func monotonicNanoseconds() -> UInt64 { Clock.monotonic.nanoseconds }

/// CPU time of the calling thread in nanoseconds (CLOCK_THREAD_CPUTIME_ID).
public func threadCPUNanoseconds() -> UInt64 { Clock.thread.nanoseconds }
