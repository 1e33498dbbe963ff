import Machine
import Synchronization

/// Keeps other vCPUs out. A vCPU that finds it held sleeps a little: what it guards is slow (printing).
struct Lock: ~Copyable, Sendable {
    static let serial = Lock()
    private let isHeld = Atomic<Bool>(false)

    func whileHeld(_ body: () -> Void) {
        while isHeld.exchange(true, ordering: .acquiring) { sleep(microseconds: 200) }
        body()
        isHeld.store(false, ordering: .releasing)
    }
}

/// Where all vCPUs of the guest meet.
public enum Barrier {
    private static let arrived = Atomic<UInt64>(0)

    /// Returns when every vCPU has come here for the `meeting`th time. Count the meetings from 1; a wait is
    /// slept away.
    public static func wait(_ guest: Guest, meeting: UInt64) {
        arrived.add(1, ordering: .acquiringAndReleasing)
        while arrived.load(ordering: .acquiring) < guest.vcpuCount * meeting { sleep(microseconds: 500) }
    }
}

extension Guest {
    /// This vCPU's share of `count` things that are divided among all.
    public func slice(of count: UInt64) -> Range<UInt64> {
        count * vcpu / vcpuCount..<count * (vcpu + 1) / vcpuCount
    }
}
