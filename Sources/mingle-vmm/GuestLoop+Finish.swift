import GuestMemory
import LinuxHost
import Hypervisor
import VMMProtocol

extension GuestLoop {
    /// How long a reader may be slow before the guest's memory is given back and the terminal is everybody's, nanoseconds.
    private static let haste: UInt64 = 100_000_000

    /// What a reader has at least, however the guest was ended, nanoseconds.
    private static let patience: UInt64 = 2_000_000_000

    /// Waits, when the guest has ended, until its reader has taken what it said: as long as there is a reader, unless a signal
    /// comes. If it was asked to end or ended from outside, for the grace period only. Called once, after ``run()``.
    func finish(_ outcome: Outcome) -> Outcome {
        guard let sources else { preconditionFailure("a guest ends after it ran") }
        var outcome = outcome
        for source in [sources.signals, sources.wake, sources.input, sources.pressure] {
            events.remove(source)
        }
        var interruption: Int32?
        let source = events.add { [unowned self] _ in
            while interruption == nil, let signal = HostIO.nextSignal(signals) {
                if !console.handle(signal) { interruption = signal }
            }
        }
        events.watch(source, signals.number, .input)
        let start = monotonicNanoseconds()
        let given =
            stopping?.deadline ?? (outcome.explanation == nil ? nil : start + UInt64(options.grace * 1e9))
        let deadline = given.map { max($0, start + Self.patience) }
        var isHasty = true
        while interruption == nil, watchOutput(sources) {
            let now = monotonicNanoseconds()
            if let deadline, now >= deadline { break }
            if isHasty, now >= start + Self.haste {
                isHasty = false
                machine.memory.discard()
                // Whoever presses Ctrl-C now means us.
                console.terminal?.giveUp()
            }
            events.turn(
                until: [deadline, isHasty ? start + Self.haste : nil, console.nextLook, control?.nextLook]
                    .compactMap { $0 }.min())
            control?.dropLate()
        }
        if let interruption, outcome.explanation == nil {
            outcome.status = ExitStatus.afterSignal(interruption)
            outcome.explanation = "\(outcome.end); then signal \(interruption) came"
        }
        events.remove(source)
        events.remove(sources.output)
        console.output.finish()
        if let loss = console.output.loss { outcome.lose(loss) }
        return outcome
    }
}
