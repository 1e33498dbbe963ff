import LinuxHost
import ArgumentParser
import MingleSupport
import VMMProtocol

/// `mingle stop`: asks guests to power off, and waits until they have.
struct StopCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "stop",
        abstract: "Stop guests.",
        discussion: """
            A guest is asked to power off, and after its own grace period (see 'mingle run --grace') it is ended. The \
            status is 0 if every guest named has stopped.

            EXAMPLES
              mingle stop web
              mingle stop --all --timeout 30
              mingle stop --force web     end it at once, as if its power were cut
            """)

    @Argument(help: "The names of the guests, as 'mingle ps' shows them.")
    var names: [String] = []

    @Flag(help: "Stop all of your guests.")
    var all = false

    @Flag(help: "End them at once, without asking the guest.")
    var force = false

    @Option(
        help: ArgumentHelp("How long to wait for all of them.", valueName: "seconds"),
        transform: Seconds.parse)
    var timeout = Seconds(15)

    @OptionGroup var log: LogOptions

    func validate() throws {
        if names.isEmpty && !all { throw ValidationError("Name a guest to stop, or use --all.") }
        if !names.isEmpty && all { throw ValidationError("Use either names or --all.") }
        for name in names {
            _ = try ValidationError.checking { () throws(SupportError) in try GuestName.checked(name) }
        }
    }

    func run() throws {
        let registry = GuestRegistry(directory: .current())
        var failures = 0
        var stopping: [GuestProcess] = []
        for name in try targets(in: registry, failures: &failures) {
            do throws(SupportError) {
                if let process = try signal(name, in: registry) {
                    stopping.append(process)
                } else if !all {
                    Console.write("mingle: error: no guest called '\(name)' runs: see 'mingle ps'")
                    failures += 1
                }
            } catch {
                Console.write("mingle: error: \(error)")
                failures += 1
            }
        }
        failures += try wait(for: stopping, registry: registry)
        if failures > 0 { throw ExitCode.failure }
    }

    private func targets(in registry: GuestRegistry, failures: inout Int) throws -> [String] {
        guard all else {
            var seen: Set<String> = []
            return names.filter { seen.insert($0).inserted }
        }
        let found = try registry.guests()
        let lost = found.unreadable.filter { $0.process == nil }
        for record in lost { Console.write("mingle: error: \(record)") }
        failures += lost.count
        return found.running.map(\.name) + found.unreadable.filter { $0.process != nil }.map(\.name)
    }

    /// Signals one guest; nil if it does not run.
    private func signal(_ name: String, in registry: GuestRegistry) throws(SupportError) -> GuestProcess? {
        guard let process = try GuestProcess.open(name, in: registry) else { return nil }
        let sent = try process.send(signal: force ? StopSignal.kill : StopSignal.terminate)
        // One that was stopped by its terminal could not hear it.
        if !force { _ = try process.send(signal: StopSignal.goOn) }
        log.console.log(
            .debug, "signalled process \(process.number.map(String.init) ?? "-") of guest '\(name)': \(sent)")
        return process
    }

    /// Waits for all of them until the common deadline; the number that did not stop.
    private func wait(for processes: [GuestProcess], registry: GuestRegistry) throws -> Int {
        let deadline = Clock.monotonic.nanoseconds + UInt64(timeout.count) * 1_000_000_000
        var left = 0
        for process in processes {
            let name = process.name
            if try process.wait(until: deadline) {
                _ = try registry.probe(name)
                do throws(SupportError) { try StandardOutput.print("\(name): stopped") } catch {
                    // The others are still waited for.
                    Console.write("mingle: error: \(error)")
                    left += 1
                }
            } else {
                Console.write(
                    "mingle: error: guest '\(name)' did not stop within \(timeout.count) s: "
                        + (force
                            ? "see process \(process.number.map(String.init) ?? "of its record")"
                            : "use --force or a longer --timeout"))
                left += 1
            }
        }
        return left
    }
}
