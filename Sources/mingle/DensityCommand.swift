import ArgumentParser
import MingleSupport
import VMMProtocol

/// `mingle density`: how much memory guests take side by side, and what sharing saves of it.
struct DensityCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "density",
        abstract: "Run guests side by side, and measure what sharing their memory saves.",
        discussion: """
            The guests are run twice: with sharing off, for comparison, then with it. What is saved is the difference \
            in what the kernel says they take; what is ideal is counted from the contents of all their pages. All of \
            it is put away at the end. The status is 1 if --verify finds a page that changed.

            EXAMPLES
              mingle density --guests 4 --image linux
              mingle density --guests 8 --image payload:fill --arguments "common=0.6 unique=0.2" --verify
              mingle density --sharing ksm --json ksm.json      the same with the kernel's own merging (root)
            """)

    @Option(help: ArgumentHelp("How many guests, 1 to \(DensityPlan.mostGuests).", valueName: "count"))
    var guests = 4

    @Option(
        help: ArgumentHelp(
            "What they run: linux (an idle Debian kernel), payload:NAME, or a kernel or payload file.",
            valueName: "image"),
        completion: .file())
    var image = "linux"

    @Option(help: ArgumentHelp("The arguments of payloads.", valueName: "text"))
    var arguments: String?

    @Option(help: ArgumentHelp("RAM of each.", valueName: "size"), transform: MemorySize.parse)
    var memory = MemorySize(bytes: 128 << 20)

    @OptionGroup var overcommit: OvercommitOption

    @OptionGroup var force: ForceOption

    @Option(help: ArgumentHelp("vCPUs of each.", valueName: "count"))
    var cpus = 1

    @Option(
        help: ArgumentHelp("How long they run, in each of the two runs.", valueName: "seconds"),
        transform: Seconds.parse)
    var duration = Seconds(10)

    @Option(
        help: ArgumentHelp(
            "Share with other guests of this domain. (default: a fresh one)", valueName: "name"),
        transform: SharingOptions.domain)
    var domain: String?

    @Option(
        help: ArgumentHelp(
            "What each Linux guest holds in files in memory: common=SIZE,unique=SIZE.", valueName: "sizes"))
    var data: String?

    @Flag(help: "Merge when all guests are up, not while they start.")
    var shareWhenUp = false

    @Option(
        help: ArgumentHelp(
            "Typed on each guest's serial line when all are up and merging has begun.", valueName: "line"))
    var type: String?

    @Option(help: "Who merges pages: builtin, ksm (the kernel, at full speed; root) or off.")
    var sharing = DensityPlan.Mode.builtin

    @OptionGroup var tuning: SharingTuning

    @Flag(help: "Check that no byte was lost.")
    var verify = false

    @Flag(help: "Leave out the run with sharing off; what is saved is then what the engine says.")
    var noBaseline = false

    @Option(
        help: ArgumentHelp(
            "Write all figures (JSON) to this file; '-' is standard output.", valueName: "file"),
        completion: .file())
    var json: String?

    @OptionGroup var log: LogOptions

    func validate() throws {
        _ = try ValidationError.checking { () throws(SupportError) in try RunChecks.cpuCount(cpus) }
        if !(1...DensityPlan.mostGuests).contains(guests) {
            throw ValidationError("--guests takes 1 to \(DensityPlan.mostGuests).")
        }
        if sharing != .builtin, domain != nil || !tuning.isDefault {
            throw ValidationError("--domain, --share-cpu and --window need --sharing builtin.")
        }
        if sharing == .off, shareWhenUp {
            throw ValidationError("--share-when-up needs --sharing builtin or ksm.")
        }
    }

    func run() throws {
        let report: DensityReport
        do throws(SupportError) {
            let plan = try DensityPreparation(command: self).plan()
            if let json, json != "-" {
                let inputs =
                    [("the kernel", plan.template.kernel)]
                    + plan.template.initrds.map { ("an initial RAM disk", $0) }
                try RunChecks.outputs([("--json", json)], inputs: inputs)
            }
            report = try DensityExperiment(plan, directory: .current(), console: log.console).run()
        } catch {
            if case .interrupted(let signal) = error {
                throw Failure(message: error.description, status: Int32(ExitStatus.afterSignal(signal)))
            }
            throw error
        }
        // What was measured is shown, whatever becomes of the file, and the other way round.
        var problem: SupportError?
        if let json, json != "-" {
            do throws(SupportError) { try WholeFile.write(json, report.json.text() + "\n") } catch {
                problem = error
            }
        }
        try StandardOutput.print(json == "-" ? report.json.text() : report.table)
        if let problem { throw problem }
        if report.hasMismatches {
            throw Failure(
                message: "pages changed while their memory was shared", status: ExitStatus.failure.code)
        }
    }
}
