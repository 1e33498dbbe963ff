/// The exit codes of `mingle run`, which are those of `mingle-vmm`; docs/exit-codes.md explains them.
public enum ExitStatus {
    /// Our init found the RAM disk incomplete.
    public static let incompleteRAMDisk: Int32 = 118
    /// Output of the guest, its report or its trace is not all there.
    public static let outputLost: Int32 = 119
    /// The guest rebooted.
    public static let rebooted: Int32 = 120
    /// The guest's kernel panicked.
    public static let panicked: Int32 = 121
    /// A vCPU had a triple fault.
    public static let tripleFault: Int32 = 122
    /// KVM reported an internal error, or an exit that the VMM does not know.
    public static let internalError: Int32 = 123
    /// `--timeout` ran out.
    public static let timeout: Int32 = 124
    /// Mingle itself failed before or while the guest ran.
    public static let failure: Int32 = 125

    /// Of `mingle broker status`: a broker runs, but does not answer.
    public static let brokerBusy: Int32 = 2

    /// The table that `mingle run --help` shows.
    public static let table = """
        EXIT CODES
          0      the guest powered off
          N      what the guest wrote to the exit port (the status of COMMAND)
          118    the initial RAM disk could not be unpacked, or holds no command
          119    output, report or trace could not be written
          120    the guest rebooted
          121    the guest's kernel panicked
          122    triple fault
          123    KVM internal error, or an exit that is not known
          124    the time given by --timeout ran out
          125    mingle itself failed
          128+n  forced to stop after signal n
          64     wrong usage of the command line
        """
}
