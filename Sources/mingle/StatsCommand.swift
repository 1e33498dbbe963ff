import LinuxHost
import ArgumentParser
import MingleSupport
import VMMProtocol

/// `mingle stats`: what guests share.
struct StatsCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "stats",
        abstract: "Tell what guests share, and what that saves.",
        discussion: """
            Numbers are pages of 4096 bytes and are named as the kernel's KSM names them: SHARED frames are kept once \
            for several guests, SHARING counts mappings beyond the first of each, UNSHARED pages were seen once, \
            VOLATILE ones change too often. PUT OFF counts what \
            was not done, for now, because the guest's process had no memory or mapping left. SAVED of a domain is what its SHARING and ZERO pages would take.

            EXAMPLES
              mingle stats
              mingle stats web db
              mingle stats --json | jq '.domains[].saved_bytes'
            """)

    @Argument(help: "The names of guests, as 'mingle ps' shows them. (default: all)")
    var names: [String] = []

    @Flag(help: "Print a JSON object with the keys guests and domains; sizes are in bytes.")
    var json = false

    @OptionGroup var log: LogOptions

    func validate() throws {
        for name in names {
            _ = try ValidationError.checking { () throws(SupportError) in try GuestName.checked(name) }
        }
    }

    func run() throws {
        let (overview, problems) = try SharingOverview.read(in: .current(), names: names)
        for warning in overview.warnings { Console.write("mingle: warning: \(warning)") }
        for problem in problems { Console.write("mingle: error: \(problem)") }
        try StandardOutput.print(json ? overview.json.text() : overview.table)
        if !problems.isEmpty { throw ExitCode.failure }
    }
}
