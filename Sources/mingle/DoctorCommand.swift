import ArgumentParser
import MingleSupport
import VMMProtocol

/// `mingle doctor`: what this host can run, and what to do about the rest.
struct DoctorCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "doctor",
        abstract: "Tell what this host can run, and how to mend what is missing.",
        discussion: """
            The status is 0 if Linux guests run natively, 2 if only payloads do, 1 if nothing runs.

            EXAMPLES
              mingle doctor
              mingle doctor --json | jq -r '.checks[] | select(.status != "ok") | .id'
            """)

    @Flag(help: "Print a JSON object with the keys version, verdict, exit_code and checks.")
    var json = false

    @OptionGroup var log: LogOptions

    func run() throws {
        let program: Result<String, SupportError>
        do throws(SupportError) { program = .success(try VMMProgram.path()) } catch {
            program = .failure(error)
        }
        let report = Doctor().report(
            kernelMode: KernelModeProbe.run, prices: KernelModeProbe.prices, state: .current(),
            program: program)
        try StandardOutput.print(json ? report.json(version: Version.current).text() : report.text)
        throw ExitCode(report.verdict.exitCode)
    }
}
