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
    /// comes. If it was asked to end or ended from outside, for the grace period only.
    consuming func finish(_ outcome: Outcome, _ signals: borrowing OwnedDescriptor) -> Outcome {
        var outcome = outcome
        let start = monotonicNanoseconds()
        let given =
            stopping?.deadline ?? (outcome.explanation == nil ? nil : start + UInt64(options.grace * 1e9))
        let deadline = given.map { max($0, start + Self.patience) }
        var isHasty = true
        wait: while console.output.hasOutput() {
            let now = monotonicNanoseconds()
            if let deadline, now >= deadline { break }
            if isHasty, now >= start + Self.haste {
                isHasty = false
                machine.memory.discard()
                // Whoever presses Ctrl-C now means us.
                console.terminal?.giveUp()
            }
            let due = [deadline, isHasty ? start + Self.haste : nil, console.nextLook, control?.nextLook]
                .compactMap { $0 }.min()
            let ready = HostIO.poll(
                [(signals.number, .input), (console.output.target, .output)] + (control?.wanted ?? []),
                timeout: due.map(HostIO.milliseconds(until:)))
            control?.serve(ready.dropFirst(2))
            if !ready[1].isEmpty { console.output.write() }
            while !ready[0].isEmpty, let signal = HostIO.nextSignal(signals) {
                if console.handle(signal) { continue }
                if outcome.explanation == nil {
                    outcome.status = ExitStatus.afterSignal(signal)
                    outcome.explanation = "\(outcome.end); then signal \(signal) came"
                }
                break wait
            }
        }
        console.output.finish()
        if let loss = console.output.loss { outcome.lose(loss) }
        return outcome
    }
}
