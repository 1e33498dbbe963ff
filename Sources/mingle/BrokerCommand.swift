import ArgumentParser
import MingleSupport

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

                EXAMPLES
                  mingle broker status --json | jq .orphan_bytes
                """)

        @Flag(help: "Print a JSON object, or null if no broker runs; sizes are in bytes.")
        var json = false

        @OptionGroup var log: LogOptions

        func run() throws {
            let directory = StateDirectory.current()
            let report =
                try directory.isPresent() ? BrokerReport.read(socket: BrokerService.socket(directory)) : nil
            if json {
                try StandardOutput.print((report?.json ?? .null).text())
            } else {
                try StandardOutput.print(report?.table ?? "no broker runs")
            }
        }
    }
}
