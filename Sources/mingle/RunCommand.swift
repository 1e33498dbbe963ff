import ArgumentParser
import MingleSupport
import VMMProtocol

/// `mingle run`: prepares the images of a guest, checks what it needs, and becomes its VMM.
struct RunCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "run",
        abstract: "Run a guest in the foreground.",
        usage: "mingle run [<options>] [-- <command> ...]",
        discussion: """
            Without a command the guest gives you a shell. Words after '--' are run in the guest instead, and its \
            status is the status of mingle; for a payload they are its arguments.

            EXAMPLES
              mingle run
              mingle run --memory 256M --cpus 2 -- sh -c 'nproc; free'
              echo 'uname -r' | mingle run
              mingle run --kernel ./bzImage --initrd ./root.cpio.gz
              mingle run --kernel payload:hello --serial file:hello.log
              mingle run --domain lab --share-cpu 5%      share memory with the guests of domain lab

            \(ExitStatus.table)
            """)

    @OptionGroup(title: "Guest") var guest: GuestOptions
    @OptionGroup(title: "Boot") var boot: BootOptions
    @OptionGroup(title: "Sharing") var sharing: SharingOptions
    @OptionGroup(title: "Running") var running: RunningOptions
    @OptionGroup var log: LogOptions

    /// For the help and the parser, which is shown one word in the place of all.
    @Argument(parsing: .postTerminator, help: "What to run in the guest, after '--'.")
    var command: [String] = []

    /// What to run in the guest; see ``ParsedLine``.
    var words: [[UInt8]] = []

    /// Only what the parser sets.
    private enum CodingKeys: CodingKey { case guest, boot, sharing, running, log, command }

    func validate() throws {
        try guest.check()
        try boot.check(hasCommand: !command.isEmpty)
        try running.check()
        try sharing.check(dirtyLog: running.dirtyLog)
    }

    func run() throws {
        do throws(SupportError) {
            let program = try VMMProgram.path()
            let invocation = try GuestPreparation(command: self).invocation()
            log.console.log(.debug, "executing \(program) \(invocation.arguments.joined(separator: " "))")
            try VMMProgram.execute(program, arguments: invocation.arguments)
        } catch {
            throw Failure(message: error.description, status: ExitStatus.failure.code)
        }
    }
}
