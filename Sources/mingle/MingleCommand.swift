import ArgumentParser
import GuestMemory
import LinuxHost
import MingleSupport
import VMMProtocol

/// The program: `mingle SUBCOMMAND`.
struct MingleCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "mingle",
        abstract: "Run small virtual machines on KVM.",
        discussion: """
            EXAMPLES
              mingle doctor               what can this host run?
              mingle run                  a shell in a small Linux guest
              mingle run -- uname -a      one command; its status comes back
              mingle run --kernel payload:hello
                                          a program without a system under it
              mingle ps                   the guests that run
              mingle stats                what they share, and what that saves
              mingle density --guests 8 --image payload:fill --arguments common=0.9
                                          what sharing saves, measured and verified
              mingle stop --all           power all of them off
            """,
        version: Version.current,
        subcommands: [
            RunCommand.self, PSCommand.self, StatsCommand.self, StopCommand.self, ShareCommand.self,
            DensityCommand.self, BrokerCommand.self, ImagesCommand.self, DoctorCommand.self,
            CompletionsCommand.self,
        ])
}

/// Where the program starts: repair what a killed guest left of this terminal, then run the subcommand.
@main
enum Main {
    static func main() {
        SystemCall.fillStandardStreams()
        checkStart()
        repairTerminal()
        clearLeftovers()
        restoreBroker()
        do {
            var command = try ParsedLine(ProcessArguments.bytes()).command()
            try command.run()
        } catch {
            Failure.exit(error)
        }
    }

    /// Before anything looks at the command line: without /proc there is none.
    private static func checkStart() {
        let variables = ["XDG_RUNTIME_DIR", "MINGLE_VMM", "MINGLE_BROKER", "MINGLE_SHARE"]
        guard let problem = ProgramStart.check(variables: variables) else { return }
        let failure = ProgramStart.argument(1) == "run" ? ExitStatus.failure.code : 1
        Console.write("mingle: error: \(problem)")
        MingleCommand.exit(withError: ExitCode(failure))
    }

    private static func clearLeftovers() {
        do throws(SupportError) {
            for message in try Leftovers.clear(in: .current()) { Console(level: .info).log(.info, message) }
        } catch {
            if case .unusableStateDirectory = error { return }
            Console(level: .warning).log(.warning, error.description)
        }
    }

    /// Before a command, and after one by which guests may want a broker.
    static func restoreBroker() {
        do throws(SupportError) {
            for message in try LostBroker.restore(in: .current()) {
                Console(level: .info).log(.info, message)
            }
        } catch {
            if case .unusableStateDirectory = error { return }
            Console(level: .warning).log(.warning, "the frame broker is lost: \(error)")
        }
    }

    private static func repairTerminal() {
        do throws(SupportError) {
            let outcome = try TerminalRepair(directory: .current()).repairOwnTerminal()
            guard outcome == .repaired else { return }
            Console(level: .info).log(
                .info, "repaired the terminal, which a killed guest had left in raw mode")
        } catch {
            // A directory that cannot be trusted is refused by the subcommands that need it.
            if case .unusableStateDirectory = error { return }
            Console(level: .warning).log(.warning, error.description)
        }
    }
}
