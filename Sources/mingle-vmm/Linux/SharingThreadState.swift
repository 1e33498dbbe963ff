import BrokerClient
import GuestMemory
import Sharing

/// What only the sharing thread uses, though closures that others pass on refer to it.
///
/// Unchecked: the closures of `SharingThread` that touch it all run on that thread.
final class SharingThreadState: @unchecked Sendable {
    var mapping: LinuxGuestMapping?
    let history = SessionHistory()
}
