/// Handing guests a connection to a broker.
package enum BrokerOffer {
    /// The command of a guest's control socket that a connection comes with.
    package static let command = "broker"
    /// The answer of a guest that will never want one. Any other error may pass.
    package static let unwanted = "error: this guest was started with --sharing off"
}
