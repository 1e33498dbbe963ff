import BrokerClient
import FrameStore
import GuestMemory
import Sharing

/// What only the sharing thread uses, though closures that others pass on refer to it.
///
/// Unchecked: the closures of `SharingThread` that touch it all run on that thread.
final class SharingThreadState: @unchecked Sendable {
    var mapping: LinuxGuestMapping?
    let history = SessionHistory()
    /// A broker that was greeted and has not answered.
    var greeting: BrokerGreeting?
    /// Why the last one declined; nil when none did.
    var refusal: BrokerError?
}
