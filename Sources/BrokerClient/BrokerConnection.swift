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

    consuming func release() -> PacketSocket { socket }

    /// Connects to a broker's socket, and checks who listens; greets nobody.
    /// - Parameter milliseconds: how long to wait for room at its door.
    public init(path: String, milliseconds: Int) throws(BrokerError) {
        socket = try BrokerLink(path, milliseconds).release()
    }
}
