public import FrameStore
public import LinuxHost

internal import CLinux

/// A connection to a broker that somebody else made and handed on, for who may not connect anywhere, or does not know where.
public struct BrokerConnection: ~Copyable, Sendable {
    let socket: PacketSocket

    /// Checks it as a connection of our own: who listens must be a process of this user. That it is a broker shows when it is
    /// greeted.
    public init(_ descriptor: consuming OwnedDescriptor) throws(BrokerError) {
        let socket = PacketSocket(descriptor: descriptor)
        let user: UInt32
        do throws(LinuxError) { user = try socket.peer().user } catch { throw .system(error) }
        guard UserNumbers.current.isOurs(user) else { throw .foreignPeer(user: user) }
        self.socket = socket
    }
}
