/// The kinds of thread that a VMM has while its guest runs: each may ask the kernel for what it does, and for nothing else.
public enum ThreadKind: String, CaseIterable, Sendable {
    /// Console, signals, time limits, the control socket.
    case main
    /// Runs a virtual CPU.
    case vcpu
    /// Merges the guest's memory: the scanner.
    case sharing
    /// Measures once, with a small guest of its own, what disturbing a guest costs on this host; then ends.
    case prices
}
