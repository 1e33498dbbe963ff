import CLinux

/// A handle on the process of one guest that cannot come to mean another process.
public final class GuestProcess {
    public let record: GuestRecord
    private let descriptor: OwnedDescriptor

    private init(record: GuestRecord, descriptor: consuming OwnedDescriptor) {
        self.record = record
        self.descriptor = descriptor
    }

    /// Opens the guest called `name`; nil if none of that name runs. The record is read again after the handle was
    /// made: its lock is then still held by the process that we hold.
    public static func open(_ name: String, in registry: GuestRegistry) throws(SupportError) -> GuestProcess?
    {
        let record: GuestRecord
        switch try registry.probe(name) {
        case .absent: return nil
        case .running(let found): record = found
        case .unreadable(let error): throw error
        }
        let handle = mingle_pidfd_open(record.process)
        if handle == -ESRCH { return nil }
        guard handle >= 0 else {
            throw .systemCall(operation: "open process", subject: "\(record.process)", code: -handle)
        }
        let process = GuestProcess(record: record, descriptor: OwnedDescriptor(taking: handle))
        switch try registry.probe(name) {
        case .running(let again)
        where again.process == record.process
            && again.startedUnixNanoseconds == record.startedUnixNanoseconds:
            return process
        case .unreadable(let error): throw error
        case .absent, .running: return nil
        }
    }

    /// Sends a signal; false if the process has ended already.
    public func send(signal: Int32) throws(SupportError) -> Bool {
        let result = mingle_pidfd_send_signal(descriptor.number, signal)
        if result == -ESRCH { return false }
        guard result >= 0 else {
            throw .systemCall(operation: "signal process", subject: "\(record.process)", code: -result)
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
                throw .systemCall(operation: "wait for process", subject: "\(record.process)", code: errno)
            }
            if ready == 0, SystemCall.nanoseconds(of: .monotonic) >= deadline { return false }
        }
    }
}
