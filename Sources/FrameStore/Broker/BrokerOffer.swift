internal import LinuxHost

/// Handing guests a connection to a broker.
package enum BrokerOffer {
    /// The command of a guest's control socket that a connection comes with.
    package static let command = "broker"

    /// Every guest that has a control socket in the state directory; none is waited for, and those that look for the broker
    /// themselves lose nothing when it fails.
    package static func offerToAll(_ files: BrokerFiles) {
        for name in files.controlSockets() {
            do throws(LinuxError) {
                let control = try PacketSocket.connect(to: name)
                let connection = try PacketSocket.connect(to: files.socket)
                _ = control.send(Array(command.utf8), passing: connection.descriptor.number)
            } catch { continue }
        }
    }
}
