internal import FrameStore
internal import FrameIndex
internal import LinuxHost

/// Guests that may share, and their store.
final class BrokerDomain {
    let name: String
    let epoch: UInt64
    let secret: [UInt8]
    let backing: MemfdBacking
    let core: FrameStoreCore
    /// Sessions that joined and are not gone.
    var members = 0
    /// Of the core's, those that were looked at for whom to tell to speak.
    var occurrences: UInt64 = 0

    init(name: String) throws(LinuxError) {
        self.name = name
        epoch = try randomWord()
        secret = try randomBytes(PageHasher.secretSize)
        backing = try MemfdBacking()
        guard let hasher = PageHasher(secret: secret) else {
            preconditionFailure("a secret of the size asked for")
        }
        core = FrameStoreCore(backing: backing, indexKey: try randomWord()) { hasher($0) }
    }

    /// Nobody holds anything of it any more.
    var isOver: Bool { members == 0 && core.statistics.clients == 0 }
}
