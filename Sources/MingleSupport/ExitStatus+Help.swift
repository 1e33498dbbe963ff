public import VMMProtocol

extension ExitStatus {
    /// Of `mingle broker status`: a broker runs, but does not answer.
    public static let brokerBusy: Int32 = 2

    /// The table that `mingle run --help` shows.
    public static var table: String {
        let rows: [(String, String)] =
            [
                ("0", "the guest powered off"),
                ("N", "what the guest wrote to the exit port (the status of COMMAND)"),
            ] + allCases.compactMap { status in status.meaning.map { ("\(status.rawValue)", $0) } }
            + [
                ("128+n", "forced to stop after signal n"),
                ("\(usage.rawValue)", "wrong usage of the command line"),
            ]
        let lines = rows.map { code, meaning in
            "  " + code + String(repeating: " ", count: 7 - code.utf8.count) + meaning
        }
        return (["EXIT CODES"] + lines).joined(separator: "\n")
    }

    /// nil: it has its own place, or is a fault of Mingle that nobody should see.
    private var meaning: String? {
        switch self {
        case .usage, .refusedCall: nil
        case .incompleteRAMDisk: "the initial RAM disk could not be unpacked, or holds no command"
        case .outputLost: "output, report or trace could not be written"
        case .rebooted: "the guest rebooted"
        case .panicked: "the guest's kernel panicked"
        case .tripleFault: "triple fault"
        case .internalError: "KVM internal error, or an exit that is not known"
        case .timeout: "the time given by --timeout ran out"
        case .failure: "mingle itself failed"
        }
    }
}
