import CLinux
import Glibc
import GuestMemory
import LinuxHost
import Hypervisor
import VMMProtocol

/// How it ended, for the shell.
struct Outcome {
    let end: GuestEnd
    /// Exit status of this process.
    var status: UInt8
    /// What to say instead of the guest's own end, when the end came from outside.
    var explanation: String?
    /// What the guest said, or a file that was asked for, is not all there.
    var isLoss = false

    /// Notes that something is not all there.
    mutating func lose(_ text: String) {
        // Who ended the guest from outside gets the status of that.
        if explanation == nil || isLoss { status = ExitStatus.outputLost.rawValue }
        explanation = "\(explanation ?? "\(end)"); \(text)"
        isLoss = true
    }
}

extension GuestEnd {
    /// The exit status of this process.
    fileprivate var status: UInt8 {
        switch self {
        case .poweredOff: 0
        case .exited(let code): code
        case .rebooted: ExitStatus.rebooted.rawValue
        case .panicked: ExitStatus.panicked.rawValue
        case .tripleFault: ExitStatus.tripleFault.rawValue
        case .failed: ExitStatus.internalError.rawValue
        case .stopped: ExitStatus.failure.rawValue
        }
    }
}

/// Wakes the main thread.
final class WakeEvent: Sendable {
    private let descriptor: OwnedDescriptor
    init() throws(LinuxError) { descriptor = try .event() }
    var number: Int32 { descriptor.number }
    func signal() { descriptor.signalEvent() }
    func drain() { descriptor.drainEvent() }
}

/// The main thread's loop: console, signals, time limits.
///
/// ```
///  running --signal--> asked to power off (button pressed, again every half second) --grace over, 2nd signal--> stopped
///     |  \--output gone---^                                                                                      |
///     |  \--time limit, Ctrl-A X-----------------------------------------------------------------------------^   |
///     +--- the guest ends by itself, at any time --> its reader takes what it said (GuestLoop+Finish) <----------+
/// ```
struct GuestLoop: ~Copyable {
    struct Stopping {
        /// nil: standard output is gone.
        let signal: Int32?
        let deadline: UInt64
        var nextPress: UInt64
    }

    let options: Options
    let machine: VirtualMachine
    private let timeline: Timeline
    var console: Console
    let control: ControlServer?
    private let watch: MemoryWatch?
    private let sharing: SharingSession?
    private(set) var stopping: Stopping?
    private let timeLimit: UInt64?
    private var announcedReady = false

    init(
        _ options: Options, _ machine: VirtualMachine, _ timeline: Timeline, _ control: ControlServer?,
        _ watch: MemoryWatch?, _ sharing: SharingSession?, log: consuming OutputFile?
    ) throws {
        self.control = control
        self.watch = watch
        self.sharing = sharing
        self.options = options
        self.machine = machine
        self.timeline = timeline
        console = try Console(options, log, serial: machine.serial, timeline: timeline)
        timeLimit = options.timeout > 0 ? monotonicNanoseconds() + UInt64(options.timeout * 1e9) : nil
    }

    /// Runs until the guest has ended or must be stopped.
    mutating func run(
        _ signals: borrowing OwnedDescriptor, _ wake: WakeEvent, _ record: GuestRegistration?
    ) -> Outcome {
        // A payload has no terminal line that would have to be set up.
        if !machine.hasPowerButton { console.mayRead = true }
        while true {
            if let end = machine.end { return outcome(end) }
            if let outcome = checkTime() { return outcome }
            if !announcedReady, timeline.isReady {
                announcedReady = true
                sharing?.guestIsReady()
            }
            record?.update(
                state: stopping != nil
                    ? .stopping
                    : watch?.isPaused == true || control?.holdsGuest == true
                        ? .paused : announcedReady ? .running : .booting)
            if !console.mayRead, timeline.acceptsInput { console.mayRead = true }
            console.look()
            let hasOutput = console.output.hasOutput()
            let nextInput = console.feedInput()
            let ready = HostIO.poll(
                [
                    (signals.number, .input), (wake.number, .input), (console.wantedInput, .input),
                    (hasOutput ? console.output.target : -1, .output), (watch?.descriptor ?? -1, .urgent),
                ] + (control?.wanted ?? []), timeout: timeout(nextInput))
            _ = watch?.look(isReady: !ready[4].isEmpty)
            control?.serve(ready.dropFirst(5))
            if !ready[1].isEmpty { wake.drain() }
            if !ready[3].isEmpty { console.output.write() }
            if !ready[2].isEmpty, console.readInput() == .quit {
                machine.stop()
                return Outcome(
                    end: .stopped, status: ExitStatus.afterSignal(SIGINT), explanation: "stopped by Ctrl-A X")
            }
            if !ready[0].isEmpty {
                while let signal = HostIO.nextSignal(signals) {
                    if !console.handle(signal), let outcome = receive(signal, record) { return outcome }
                }
            }
            // Nobody can want this guest any more, whose output is lost.
            if console.output.failure != nil, stopping == nil, let outcome = receive(nil, record) {
                return outcome
            }
        }
    }

    /// - Parameter signal: nil: standard output is gone.
    private mutating func receive(_ signal: Int32?, _ record: GuestRegistration?) -> Outcome? {
        if let stopping { return stop(after: stopping.signal) }
        let now = monotonicNanoseconds()
        stopping = Stopping(
            signal: signal, deadline: now + UInt64(options.grace * 1e9), nextPress: now + 500_000_000)
        record?.update(state: .stopping)
        guard machine.hasPowerButton else { return stop(after: signal) }
        watch?.release()
        machine.requestStop()
        return nil
    }

    private mutating func checkTime() -> Outcome? {
        let now = monotonicNanoseconds()
        if let timeLimit, now >= timeLimit {
            machine.stop()
            if let end = machine.end, end != .stopped { return outcome(end) }
            return Outcome(
                end: .stopped, status: ExitStatus.timeout.rawValue,
                explanation: "stopped at the time limit of \(options.timeout) s")
        }
        guard let current = stopping else { return nil }
        if now >= current.deadline { return stop(after: current.signal) }
        if now >= current.nextPress {
            // A kernel that was still booting has not seen the first press.
            machine.requestStop()
            stopping?.nextPress = now + 500_000_000
        }
        return nil
    }

    private func stop(after signal: Int32?) -> Outcome {
        machine.stop()
        if let end = machine.end, end != .stopped { return outcome(end) }
        guard let signal else { return Outcome(end: .stopped, status: ExitStatus.outputLost.rawValue) }
        return Outcome(
            end: .stopped, status: ExitStatus.afterSignal(signal),
            explanation: "stopped by force after signal \(signal)")
    }

    private func outcome(_ end: GuestEnd) -> Outcome {
        Outcome(end: end, status: end.status, explanation: nil)
    }

    /// Milliseconds until something is due; nil for ever.
    private func timeout(_ nextInput: UInt64?) -> Int32? {
        let due = [
            nextInput, timeLimit, stopping?.deadline, stopping?.nextPress, watch?.nextLook, console.nextLook,
            control?.nextLook,
        ].compactMap { $0 }.min()
        return due.map(HostIO.milliseconds(until:))
    }
}
