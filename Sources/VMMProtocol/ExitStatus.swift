/// The exit codes of `mingle-vmm`, which are those of `mingle run`; docs/exit-codes.md explains them.
///
/// A guest that powers off is 0, and one that writes to the exit port ends with what it wrote.
public enum ExitStatus: UInt8, CaseIterable, Sendable {
    /// Wrong usage of the command line, as sysexits(3) has it.
    case usage = 64
    /// A thread of the VMM asked the kernel for what none of its kind may: `MINGLE_REFUSED_STATUS` of CLinux.
    case refusedCall = 117
    /// Our init found the RAM disk incomplete, and wrote this to the exit port (guests/linux).
    case incompleteRAMDisk = 118
    /// Output of the guest, its report or its trace is not all there.
    case outputLost = 119
    case rebooted = 120
    /// The guest's kernel panicked.
    case panicked = 121
    case tripleFault = 122
    /// KVM reported an internal error, or an exit that the VMM does not know.
    case internalError = 123
    /// `--timeout` ran out.
    case timeout = 124
    /// Mingle itself failed before or while the guest ran.
    case failure = 125

    /// For exit(3).
    public var code: Int32 { Int32(rawValue) }

    /// The guest was ended by force after a signal.
    public static func afterSignal(_ number: Int32) -> UInt8 { UInt8(truncatingIfNeeded: 128 + number) }
}
