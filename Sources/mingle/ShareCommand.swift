import LinuxHost
import ArgumentParser
import MingleSupport
import VMMProtocol

/// `mingle share`: changes how running guests share memory.
struct ShareCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "share",
        abstract: "Change how running guests share memory, or tell why it is shared or not.",
        discussion: """
            EXAMPLES
              mingle share off web        bring all of its pages home
              mingle share on web
              mingle share cpu 5% web db
              mingle share explain web    why its pages are shared, or are not
            """,
        subcommands: [On.self, Off.self, CPU.self, Explain.self])

    /// `mingle share on`
    struct On: ParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "Let guests share memory again.", discussion: "EXAMPLES\n  mingle share on web")
        @Argument(help: "The names of the guests.") var names: [String]
        @OptionGroup var log: LogOptions
        func run() throws {
            defer { Main.restoreBroker() }
            try ShareCommand.tell(names, .sharing(isOn: true))
        }
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
        func run() throws { try ShareCommand.tell(names, .sharing(isOn: false)) }
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
        func run() throws { try ShareCommand.tell(names, .shareCPU(percent)) }
    }

    /// `mingle share explain`
    struct Explain: ParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "Tell why a guest's pages are shared, or are not.",
            discussion: """
                Counts all pages by reason; each has just one, so that the counts add up to the guest's memory. \
                With a page's number (in the guest's memory file), tells of that one, and with whom it is shared.

                EXAMPLES
                  mingle share explain web
                  mingle share explain web 0x1f00
                """)
        @Argument(help: "The name of the guest.") var name: String
        @Argument(help: "The number of a page, decimal or after 0x.", transform: Self.number)
        var page: Int?
        @Flag(help: "Print a JSON object with the keys name, domain, hold, pages and reasons.")
        var json = false
        @OptionGroup var log: LogOptions

        private static func number(_ text: String) throws -> Int {
            let number = text.hasPrefix("0x") ? Int(text.dropFirst(2), radix: 16) : Int(text)
            guard let number, number >= 0 else {
                throw ValidationError("\(text) is no number of a page: use 7936 or 0x1f00.")
            }
            return number
        }

        func validate() throws {
            _ = try ValidationError.checking { () throws(SupportError) in try GuestName.checked(name) }
            if json, page != nil { throw ValidationError("--json goes with counts, not with a page.") }
        }

        func run() throws {
            let directory = StateDirectory.current()
            if let page {
                let answer = try PageReport(page, of: name, in: directory)
                return try StandardOutput.print(answer.text)
            }
            let answer = try SharingExplanation.read(name, in: directory)
            try StandardOutput.print(json ? answer.json.text() : answer.table)
        }
    }

    private static func tell(_ names: [String], _ command: ControlCommand) throws {
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
