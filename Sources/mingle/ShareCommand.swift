import LinuxHost
import ArgumentParser
import MingleSupport
import VMMProtocol

/// `mingle share`: changes how running guests share memory.
struct ShareCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "share",
        abstract: "Change how running guests share memory.",
        discussion: """
            EXAMPLES
              mingle share off web        bring all of its pages home
              mingle share on web
              mingle share cpu 5% web db
            """,
        subcommands: [On.self, Off.self, CPU.self])

    /// `mingle share on`
    struct On: ParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "Let guests share memory again.", discussion: "EXAMPLES\n  mingle share on web")
        @Argument(help: "The names of the guests.") var names: [String]
        @OptionGroup var log: LogOptions
        func run() throws { try ShareCommand.tell(names, "sharing on") }
    }

    /// `mingle share off`
    struct Off: ParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "Take guests' memory home: nothing of it is shared any more.",
            discussion: """
                It is done when 'mingle stats --json' says home.

                EXAMPLES
                  mingle share off web
                """)
        @Argument(help: "The names of the guests.") var names: [String]
        @OptionGroup var log: LogOptions
        func run() throws { try ShareCommand.tell(names, "sharing off") }
    }

    /// `mingle share cpu`
    struct CPU: ParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "Set how much of one CPU merging may take.",
            discussion: "EXAMPLES\n  mingle share cpu 5% web")
        @Argument(help: "The percentage, above 0 and up to 100.", transform: SharingTuning.percent)
        var percent: Double
        @Argument(help: "The names of the guests.") var names: [String]
        @OptionGroup var log: LogOptions
        func run() throws { try ShareCommand.tell(names, "share-cpu \(percent)") }
    }

    private static func tell(_ names: [String], _ command: String) throws {
        let directory = StateDirectory.current()
        var failed = false
        for name in names {
            do throws(SupportError) {
                try ControlClient(guest: GuestName.checked(name), in: directory).ask(command)
            } catch {
                Console.write("mingle: error: \(error)")
                failed = true
            }
        }
        if failed { throw ExitCode.failure }
    }
}
