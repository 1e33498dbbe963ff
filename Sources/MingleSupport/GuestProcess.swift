import CLinux

/// A handle on the process of one guest that cannot come to mean another process.
public final class GuestProcess {
    public let name: String
    /// The VMM's number.
    public let process: Int32
    private let descriptor: OwnedDescriptor

    private init(name: String, process: Int32, descriptor: consuming OwnedDescriptor) {
        self.name = name
        self.process = process
        self.descriptor = descriptor
    }

    /// Opens the guest called `name`; nil if none of that name runs. The record is read again after the handle was
    /// made: its lock is then still held by the process that we hold.
    public static func open(_ name: String, in registry: GuestRegistry) throws(SupportError) -> GuestProcess?
    {
        guard let found = try holder(of: name, in: registry) else { return nil }
        let handle = mingle_pidfd_open(found.process)
        if handle == -ESRCH { return nil }
        guard handle >= 0 else {
            throw .systemCall(operation: "open process", subject: "\(found.process)", code: -handle)
        }
        let process = GuestProcess(
            name: name, process: found.process, descriptor: OwnedDescriptor(taking: handle))
        guard let again = try holder(of: name, in: registry), again == found else { return nil }
        return process
    }

    /// The process of a guest and when it started; of a damaged record, the holder of its lock.
    private static func holder(of name: String, in registry: GuestRegistry) throws(SupportError)
        -> (process: Int32, started: UInt64)?
    {
        switch try registry.probe(name) {
        case .absent: return nil
        case .running(let record): return (record.process, record.startedUnixNanoseconds)
        case .unreadable(let record):
            // Whoever holds it must be a VMM: nothing else is ever signalled.
            guard let process = record.process,
                SystemCall.text(of: "/proc/\(process)/comm") == Companion.vmm.rawValue + "\n"
            else { throw .requirement(problem: "the guest cannot be found", advice: "\(record)") }
            return (process, 0)
        }
    }

    /// Sends a signal; false if the process has ended already.
    public func send(signal: Int32) throws(SupportError) -> Bool {
        let result = mingle_pidfd_send_signal(descriptor.number, signal)
        if result == -ESRCH { return false }
        guard result >= 0 else {
            throw .systemCall(operation: "signal process", subject: "\(self.process)", code: -result)
        }
        return true
    }

    /// Waits until the process has ended or `deadline`, in nanoseconds of the monotonic clock, has passed. True if it
    /// ended.
    public func wait(until deadline: UInt64) throws(SupportError) -> Bool {
        while true {
            let now = SystemCall.nanoseconds(of: .monotonic)
            let milliseconds = deadline > now ? (deadline - now + 999_999) / 1_000_000 : 0
            var request = pollfd(fd: descriptor.number, events: Int16(POLLIN), revents: 0)
            // SAFETY: one whole struct pollfd of ours, and a count of one.
            let ready = unsafe poll(&request, 1, Int32(clamping: milliseconds))
            if ready > 0 { return true }
            if ready < 0, errno != EINTR {
                throw .systemCall(operation: "wait for process", subject: "\(self.process)", code: errno)
            }
            if ready == 0, SystemCall.nanoseconds(of: .monotonic) >= deadline { return false }
        }
    }
}
