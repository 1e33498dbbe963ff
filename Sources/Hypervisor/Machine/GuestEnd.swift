/// How a guest's life ended.
public enum GuestEnd: Equatable, Sendable, CustomStringConvertible {
    /// ACPI power-off (S5).
    case poweredOff
    /// The guest wrote this to the exit port.
    case exited(UInt8)
    /// The guest asked for a reset, by ACPI, the keyboard controller or the reset port.
    case rebooted
    /// The guest's kernel reported a panic to the pvpanic device.
    case panicked
    /// A triple fault; with the state of the vCPU.
    case tripleFault(String)
    /// KVM could not go on, or gave an exit that nobody understands; with the state of the vCPU.
    case failed(String)
    /// Stopped from outside, without the guest's doing.
    case stopped

    /// A single word for machines to read.
    public var word: String {
        switch self {
        case .poweredOff: "powered-off"
        case .exited: "exited"
        case .rebooted: "rebooted"
        case .panicked: "panicked"
        case .tripleFault: "triple-fault"
        case .failed: "failed"
        case .stopped: "stopped"
        }
    }

    public var description: String {
        switch self {
        case .poweredOff: "guest powered off"
        case .exited(let code): "guest exited with status \(code)"
        case .rebooted: "guest asked for a reboot"
        case .panicked: "guest kernel panicked"
        case .tripleFault(let state): "guest ended in a triple fault\n\(state)"
        case .failed(let state): "guest cannot go on: \(state)"
        case .stopped: "guest stopped"
        }
    }
}
