/// Handing guests a connection to a broker.
package enum BrokerOffer {
    /// The command of a guest's control socket that a connection comes with.
    package static let command = "broker"
}
