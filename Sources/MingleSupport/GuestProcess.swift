import CLinux
internal import GuestMemory
internal import LinuxHost
internal import VMMProtocol

/// A handle on the process of one guest that cannot come to mean another process.
public final class GuestProcess {
    public let name: String
    private let peer: Peer
    /// Its number in this PID namespace, if it has one.
    public var number: Int32? { peer.number }

    private init(name: String, peer: consuming Peer) {
        self.name = name
        self.peer = peer
    }

    /// Opens the guest called `name`; nil if none of that name runs. The record is read again after the handle was
    /// made: its lock is then still held by the process that we hold.
    /// - Throws: also when nothing proves which process the guest is.
    public static func open(_ name: String, in registry: GuestRegistry) throws(SupportError) -> GuestProcess?
    {
        let process: GuestProcess
        let probe = try registry.probe(name)
        switch probe {
        case .absent: return nil
        case .running(let record):
            guard let peer = try registry.provedProcess(of: record) else { return nil }
            process = GuestProcess(name: name, peer: peer)
        case .unreadable(let record):
            guard let peer = try holder(of: record) else { return nil }
            process = GuestProcess(name: name, peer: peer)
        }
        let again = try registry.probe(name)
        return isSame(again, probe) ? process : nil
    }

    /// Whether both say the same of who holds the record.
    private static func isSame(_ one: GuestRegistry.Probe, _ other: GuestRegistry.Probe) -> Bool {
        switch (one, other) {
        case (.running(let one), .running(let other)):
            one.process == other.process && one.startedUnixNanoseconds == other.startedUnixNanoseconds
        case (.unreadable(let one), .unreadable(let other)): one.process == other.process
        default: false
        }
    }

    /// The holder of a damaged record's lock, as the kernel tells it in this PID namespace; nil when it has ended.
    private static func holder(of record: DamagedRecord) throws(SupportError) -> Peer? {
        // Whoever holds it must be a VMM: nothing else is ever signalled.
        guard let process = record.process,
            SystemCall.text(of: "/proc/\(process)/comm") == Companion.vmm.rawValue + "\n"
        else { throw .requirement(problem: "the guest cannot be found", advice: "\(record)") }
        do throws(Peer.Unknown) { return try Peer(number: process) } catch {
            if error == .ended { return nil }
            throw .guest(name: record.name, reason: "process \(process): \(error)")
        }
    }

    /// Sends a signal; false if the process has ended already.
    public func send(signal: Int32) throws(SupportError) -> Bool {
        do throws(LinuxError) { try peer.handle.send(signal) } catch {
            if error.code == ESRCH { return false }
            // The kernel takes signals for processes of the sender's PID namespace and those below it.
            if error.code == EINVAL {
                throw .guest(
                    name: name,
                    reason:
                        "it runs in a PID namespace that this command cannot reach: use the command where it was started"
                )
            }
            throw .systemCall(operation: "signal", subject: "guest '\(name)'", code: error.code)
        }
        return true
    }

    /// Waits until the process has ended or `deadline`, in nanoseconds of the monotonic clock, has passed. True if it
    /// ended.
    public func wait(until deadline: UInt64) throws(SupportError) -> Bool {
        while true {
            let now = Clock.monotonic.nanoseconds
            let milliseconds = deadline > now ? (deadline - now + 999_999) / 1_000_000 : 0
            if peer.handle.waitForEnd(milliseconds: Int32(clamping: milliseconds)) { return true }
            if Clock.monotonic.nanoseconds >= deadline { return false }
        }
    }
}
