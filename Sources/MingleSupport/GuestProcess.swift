import CLinux
internal import FrameBroker
internal import GuestMemory

/// A handle on the process of one guest that cannot come to mean another process.
public final class GuestProcess {
    public let record: GuestRecord
    private let peer: Peer
    /// Its number in this PID namespace, if it has one.
    public var number: Int32? { peer.number }

    private init(record: GuestRecord, peer: consuming Peer) {
        self.record = record
        self.peer = peer
    }

    /// Opens the guest called `name`; nil if none of that name runs. The record is read again after the handle was
    /// made: its lock is then still held by the process that we hold.
    /// - Throws: also when nothing proves which process the guest is.
    public static func open(_ name: String, in registry: GuestRegistry) throws(SupportError) -> GuestProcess?
    {
        let record: GuestRecord
        switch try registry.probe(name) {
        case .absent: return nil
        case .running(let found): record = found
        case .unreadable(let error): throw error
        }
        guard let peer = try registry.provedProcess(of: record) else { return nil }
        let process = GuestProcess(record: record, peer: peer)
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
        do throws(LinuxError) { try peer.handle.send(signal) } catch {
            if error.code == ESRCH { return false }
            // The kernel takes signals for processes of the sender's PID namespace and those below it.
            if error.code == EINVAL {
                throw .guest(
                    name: record.name,
                    reason:
                        "it runs in a PID namespace that this command cannot reach: use the command where it was started"
                )
            }
            throw .systemCall(operation: "signal", subject: "guest '\(record.name)'", code: error.code)
        }
        return true
    }

    /// Waits until the process has ended or `deadline`, in nanoseconds of the monotonic clock, has passed. True if it
    /// ended.
    public func wait(until deadline: UInt64) throws(SupportError) -> Bool {
        while true {
            let now = SystemCall.nanoseconds(of: .monotonic)
            let milliseconds = deadline > now ? (deadline - now + 999_999) / 1_000_000 : 0
            if peer.handle.waitForEnd(milliseconds: Int32(clamping: milliseconds)) { return true }
            if SystemCall.nanoseconds(of: .monotonic) >= deadline { return false }
        }
    }
}
