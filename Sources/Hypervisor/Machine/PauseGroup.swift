internal import LinuxHost

/// Some of those who write guest memory: the vCPUs, or the worker threads of one device.
package protocol PauseMember: AnyObject, Sendable {
    /// Asks its threads to stop before their next write, and does not wait for them. Nests: each call is undone by one
    /// ``resume()``.
    /// - Returns: what ``waitUntilPaused(_:)`` is to wait for.
    func requestPause() -> UInt64
    /// Returns when none of its threads writes guest memory any more.
    func waitUntilPaused(_ request: UInt64)
    /// Undoes one ``requestPause()``.
    func resume()
}

/// All who write guest memory. From any thread but a member's own.
///
/// Every member is asked before the first is waited for, so a pause takes as long as its slowest member, not as all of them.
final class PauseGroup: Sendable {
    private let members: [any PauseMember]

    init(_ members: [any PauseMember]) { self.members = members }

    /// Returns when nobody writes guest memory any more. Nests with ``resume()``.
    func pause() {
        let requests = members.map { $0.requestPause() }
        for (member, request) in zip(members, requests) { member.waitUntilPaused(request) }
    }

    /// Undoes one ``pause()``. Devices go on before the vCPUs that use them.
    func resume() {
        for member in members.reversed() { member.resume() }
    }
}

/// The vCPUs as those that a pause stops.
final class ProcessorWriters: PauseMember {
    private let control: RunControl
    private let processors: [VirtualCPU]

    init(_ control: RunControl, _ processors: [VirtualCPU]) {
        (self.control, self.processors) = (control, processors)
    }

    func requestPause() -> UInt64 { control.requestPause() }

    func waitUntilPaused(_ request: UInt64) {
        _ = control.waitUntilPaused(request, until: .max) { processors[$0].kick() }
    }

    func resume() { control.resume() }
}
