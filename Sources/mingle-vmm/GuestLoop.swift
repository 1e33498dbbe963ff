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
final class GuestLoop {
    struct Stopping {
        /// nil: standard output is gone.
        let signal: Int32?
        let deadline: UInt64
        var nextPress: UInt64
    }
    struct Sources {
        let signals: EventLoop.Source
        let wake: EventLoop.Source
        let input: EventLoop.Source
        let output: EventLoop.Source
        let pressure: EventLoop.Source
    }

    let options: Options
    let machine: VirtualMachine
    let events: EventLoop
    private let timeline: Timeline
    var console: Console
    let control: ControlServer?
    private let watch: MemoryWatch?
    private let sharing: SharingSession?
    private let record: GuestRegistration?
    let signals: OwnedDescriptor
    private let wake: WakeEvent
    private(set) var sources: Sources?
    private(set) var stopping: Stopping?
    /// Why the guest must be stopped, as a handler found.
    private var decision: Outcome?
    private let timeLimit: UInt64?
    private var announcedReady = false

    /// - Parameter signals: where signals are read from (signalfd(2)).
    init(
        _ options: Options, _ machine: VirtualMachine, _ timeline: Timeline, _ events: EventLoop,
        _ control: ControlServer?, _ watch: MemoryWatch?, _ sharing: SharingSession?,
        _ record: GuestRegistration?, log: consuming OutputFile?, signals: consuming OwnedDescriptor,
        wake: WakeEvent
    ) throws {
        self.control = control
        self.watch = watch
        self.sharing = sharing
        self.record = record
        self.options = options
        self.machine = machine
        self.timeline = timeline
        self.events = events
        self.signals = signals
        self.wake = wake
        console = try Console(options, log, serial: machine.serial, timeline: timeline)
        timeLimit = options.timeout > 0 ? monotonicNanoseconds() + UInt64(options.timeout * 1e9) : nil
    }

    /// Runs until the guest has ended or must be stopped.
    func run() -> Outcome {
        addSources()
        // A payload has no terminal line that would have to be set up.
        if !machine.hasPowerButton { console.mayRead = true }
        while true {
            if let end = machine.end { return outcome(end) }
            if let outcome = checkTime() { return outcome }
            announce()
            if !console.mayRead, timeline.acceptsInput { console.mayRead = true }
            console.look()
            let nextInput = console.feedInput()
            watchConsole()
            events.turn(until: nextDue(nextInput))
            _ = watch?.look(isReady: false)
            control?.dropLate()
            // Nobody can want this guest any more, whose output is lost.
            if console.output.failure != nil, stopping == nil { receive(nil) }
            if let decision { return decision }
        }
    }

    private func addSources() {
        let sources = Sources(
            signals: events.add { [unowned self] _ in takeSignals() },
            wake: events.add { [unowned self] _ in wake.drain() },
            input: events.add { [unowned self] _ in readInput() },
            output: events.add { [unowned self] _ in console.output.write() },
            pressure: events.add { [unowned self] _ in _ = watch?.look(isReady: true) })
        events.watch(sources.signals, signals.number, .input)
        events.watch(sources.wake, wake.number, .input)
        events.watch(sources.pressure, watch?.descriptor ?? -1, .urgent)
        self.sources = sources
    }

    private func watchConsole() {
        guard let sources else { return }
        events.watch(sources.input, console.wantedInput, .input)
        watchOutput(sources)
    }

    /// - Returns: whether output waits for its reader.
    @discardableResult
    func watchOutput(_ sources: Sources) -> Bool {
        let hasOutput = console.output.hasOutput()
        events.watch(sources.output, hasOutput ? console.output.target : -1, .output)
        return hasOutput
    }

    private func announce() {
        if !announcedReady, timeline.isReady {
            announcedReady = true
            sharing?.guestIsReady()
        }
        record?.update(
            state: stopping != nil
                ? .stopping
                : watch?.isPaused == true || control?.holdsGuest == true
                    ? .paused : announcedReady ? .running : .booting)
    }

    private func readInput() {
        guard console.readInput() == .quit else { return }
        machine.stop()
        decide(
            Outcome(
                end: .stopped, status: ExitStatus.afterSignal(SIGINT), explanation: "stopped by Ctrl-A X"))
    }

    private func takeSignals() {
        while decision == nil, let signal = HostIO.nextSignal(signals) {
            if !console.handle(signal) { receive(signal) }
        }
    }

    private func decide(_ outcome: Outcome) { decision = decision ?? outcome }

    /// - Parameter signal: nil: standard output is gone.
    private func receive(_ signal: Int32?) {
        if let stopping { return decide(stop(after: stopping.signal)) }
        let now = monotonicNanoseconds()
        stopping = Stopping(
            signal: signal, deadline: now + UInt64(options.grace * 1e9), nextPress: now + 500_000_000)
        record?.update(state: .stopping)
        guard machine.hasPowerButton else { return decide(stop(after: signal)) }
        watch?.release()
        machine.requestStop()
    }

    private func checkTime() -> Outcome? {
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

    /// When something is due that no descriptor tells, monotonic nanoseconds; nil for never.
    private func nextDue(_ nextInput: UInt64?) -> UInt64? {
        [
            nextInput, timeLimit, stopping?.deadline, stopping?.nextPress, watch?.nextLook, console.nextLook,
            control?.nextLook,
        ].compactMap { $0 }.min()
    }
}
