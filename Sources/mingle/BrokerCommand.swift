import ArgumentParser
import MingleSupport
import VMMProtocol

/// `mingle broker`: the process that keeps what guests share.
struct BrokerCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "broker",
        abstract: "Look at the process that keeps what guests share.",
        discussion: """
            It is started with the first guest that shares memory and ends with the last.

            EXAMPLES
              mingle broker status
            """,
        subcommands: [Status.self])

    /// `mingle broker status`
    struct Status: ParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "List clients, domains and stores.",
            discussion: """
                ORPHANS is memory that guests may keep whose connection is closed.

                EXIT CODES
                  0  the figures, or that no broker runs
                  1  it failed
                  2  a broker runs, but does not answer: it is too busy, or is being started again

                EXAMPLES
                  mingle broker status --json | jq .orphan_bytes
                """)

        @Flag(help: "Print a JSON object, or null if no broker runs; sizes are in bytes.")
        var json = false

        @OptionGroup var log: LogOptions

        func run() throws {
            let directory = StateDirectory.current()
            let report: BrokerReport?
            do throws(SupportError) {
                report =
                    try directory.isPresent()
                    ? BrokerReport.read(socket: BrokerService.socket(directory)) : nil
            } catch {
                guard case .brokerBusy = error else { throw error }
                throw Failure(message: "\(error)", status: ExitStatus.brokerBusy)
            }
            if json {
                try StandardOutput.print((report?.json ?? .null).text())
            } else {
                try StandardOutput.print(report?.table ?? "no broker runs")
            }
        }
    }
}
