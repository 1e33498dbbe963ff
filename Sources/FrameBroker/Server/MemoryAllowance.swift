internal import LinuxHost

/// How much memory stores may take: pure arithmetic. What a guest claims to have counts for nothing: what its process once held, and what
/// the host has left, does.
enum MemoryAllowance {
    /// How short of memory the host, or a control group of ours, is.
    enum Shortage: Equatable { case none, some, full }

    /// For a process whose size is not known.
    static let unknownPeak: UInt64 = 64 << 20

    /// What the clients of one process may cost together, in pages: known pages, each of which may have a frame, and the frames that
    /// wait to be freed.
    ///
    /// A merged page is no longer held by its process, so that an honest one may refer to more than it ever held at a time;
    /// refused, it holds its pages itself, and is allowed more.
    /// - Parameter peakBytes: the most that it held at a time.
    static func pages(peakBytes: UInt64, _ shortage: Shortage) -> Int {
        let held = Int(clamping: peakBytes / Page.size)
        switch shortage {
        case .none: return 1024 + held * 4
        case .some: return 256 + held
        case .full: return 0
        }
    }

    /// Frames that the clients of one process may refer to together when one of them makes another: half of the memory there is, so that
    /// no process can take it all, whatever it seems to hold. A process may seem larger than it is: by mapping the same
    /// memory many times.
    static func frames(_ bounds: [MemoryBound]) -> Int {
        Int(clamping: (bounds.map(\.totalBytes).min() ?? .max) / Page.size / 2)
    }

    static func shortage(_ bounds: [MemoryBound]) -> Shortage {
        // As MemoryPressure has it: critical, and some.
        if bounds.contains(where: { $0.availableBytes + $0.swapFreeBytes < $0.reserveBytes / 4 }) {
            return .full
        }
        return bounds.contains { $0.availableBytes < $0.reserveBytes * 2 } ? .some : .none
    }

    /// For how long a reading is good: stores grow by less than two bytes a nanosecond.
    static func validity(_ bounds: [MemoryBound]) -> UInt64 {
        let left = bounds.map { $0.availableBytes - min($0.availableBytes, $0.reserveBytes) }.min() ?? 0
        return min(max(left / 4, 20_000_000), 500_000_000)
    }
}

/// What memory the host, and our control groups, have: read now and then.
struct HostMemoryWatch {
    private let root: String
    private(set) var shortage = MemoryAllowance.Shortage.none
    /// As ``MemoryAllowance/frames(_:)``.
    private(set) var frames = Int.max
    private var until: UInt64 = 0

    /// - Parameter root: a folder in front of /proc and /sys, for tests.
    init(root: String = "") { self.root = root }

    /// - Parameter now: monotonic nanoseconds.
    mutating func look(_ now: UInt64) {
        guard now >= until else { return }
        let bounds = MemoryBound.all(root: root)
        shortage = MemoryAllowance.shortage(bounds)
        frames = MemoryAllowance.frames(bounds)
        until = now + MemoryAllowance.validity(bounds)
    }
}

/// What a process held at most, as the kernel counts it.
enum ProcessPeak {
    /// Bytes of memory that the process held at most at a time; nil when that is not to be known.
    /// - Parameter root: a folder in front of /proc, for tests.
    static func bytes(of process: Int32, root: String = "") -> UInt64? {
        guard let text = SystemCall.text(of: "\(root)/proc/\(process)/status") else { return nil }
        return SmallFile.table(text)["VmHWM"].map { $0 << 10 }
    }
}
