internal import GuestMemory
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

/// Handing guests a connection to a broker.
package enum BrokerOffer {
    /// The command of a guest's control socket that a connection comes with.
    package static let command = "broker"

    /// Every guest that has a control socket in the state directory; none is waited for, and those that look for the broker
    /// themselves lose nothing when it fails.
    static func offerToAll(_ files: BrokerFiles) {
        for name in files.controlSockets() {
            do throws(LinuxError) {
                let control = try PacketSocket.connect(to: name)
                let connection = try PacketSocket.connect(to: files.socket)
                _ = control.send(Array(command.utf8), passing: connection.descriptor.number)
            } catch { continue }
        }
    }
}
