import CLinux
import Confinement
import Glibc
import GuestMemory
import LinuxHost
import Hypervisor
import VMMProtocol
import Sharing
import Virtio

/// One guest, one process: build it, run its console until it ends, say how it ended.
@main
struct VMM {
    static func main() {
        mingle_fill_standard_streams()
        let started = monotonicNanoseconds()
        if let problem = ProgramStart.check() { fail("\(problem)", .failure) }
        HostIO.useOneArena()
        let words: [String]
        let options: Options
        do throws(ProcessArguments.NotText) {
            words = try ProcessArguments.text(ProcessArguments.bytes())
        } catch {
            fail("\(error)", .usage)
        }
        do throws(UsageError) { options = try Options(words) } catch {
            fail("\(error)\n\(VMMInvocation.usage)", .usage)
        }
        do {
            exit(try run(options, Timeline(started: started)))
        } catch { fail("\(error)", .failure) }
    }

    private static func run(_ options: Options, _ timeline: Timeline) throws -> Int32 {
        if options.diesWithParent { HostIO.dieWithParent() }
        let signals = try HostIO.signals([SIGTERM, SIGHUP, SIGINT, SIGQUIT, SIGTSTP, SIGCONT])
        let record = try GuestRegistration(options)
        // From here on the guest is counted: the next one may be checked.
        if let admission = options.admission { _ = OwnedDescriptor(adopting: admission) }
        let wake = try WakeEvent()
        var observer = GuestObserver()
        observer.doorbell = { number, processor in
            timeline.ring(number, processor)
            if number == Doorbell.ready || number == Doorbell.acceptsInput { wake.signal() }
        }
        observer.serialOutput = { wake.signal() }
        observer.serialInput = { wake.signal() }
        observer.ended = { wake.signal() }
        observer.entered = { timeline.enter() }
        let walls = try Walls(options)
        observer.threadIsReady = { index throws(LinuxError) in
            try walls.enter(.vcpu, name: "vcpu\(index)")
        }

        // Everything is opened, and every thread made, before the first byte of an image is read.
        let events = try EventLoop()
        var devices: VirtioMachine?
        let machine = try VirtualMachine(opening: options.configuration, observer: observer) {
            context throws(HypervisorError) in
            guard options.hasEntropy else { return [] }
            let virtio = try VirtioMachine(context, events)
            try virtio.add(EntropyDevice())
            devices = virtio
            return virtio.descriptions
        }
        defer { withExtendedLifetime(devices) {} }
        timeline.observe(machine.serial)
        // They get ready while this thread goes on.
        try machine.startThreads()
        var files = try GuestFiles(options)
        // Before the broker is looked for: one that is lost right then offers the guest the next.
        let door = try ControlServer.Door(options)
        if options.sharing.isOn { HeapReserve.prepare() }
        let sharing = try SharingSession(
            options, machine, timeline, traceFile: files.takeTrace(), walls: walls)
        // With a broker, it is said when the broker has answered.
        if let sharing, options.sharing.brokerPath == nil, options.logLevel <= .info {
            HostIO.tell(
                "mingle: info: \(options.configuration.name) merges pages of zeros only, without a broker; "
                    + "window \(sharing.window.rawValue)\n")
        }
        let watch = MemoryWatch(options, machine, sharing)
        let control = try door.map {
            try ControlServer(options, machine, sharing, watch, timeline, $0, events)
        }
        let interrupt = signals.number
        let loop = try GuestLoop(
            options, machine, timeline, events, control, watch, sharing, record, log: files.takeLog(),
            signals: signals, wake: wake)
        try machine.waitUntilThreadsAreReady()
        try sharing?.waitUntilReady()
        try walls.enter(.main)
        try machine.load()
        let built = monotonicNanoseconds()
        try machine.start()
        record?.update(state: .booting)
        var outcome = loop.run()
        sharing?.stop()
        machine.stop()
        let ended = monotonicNanoseconds()
        record?.update(state: .stopping)
        outcome = loop.finish(outcome)
        if let problem = sharing?.trace?.problem { outcome.lose(problem) }
        let report = GuestReport(options, outcome, timeline, built: built, ended: ended)
        do throws(OutputFileError) {
            try files.report?.write(Array(report.text.utf8), interrupt: interrupt)
        } catch { outcome.lose("no report: \(error)") }
        sayGoodbye(outcome, options, seconds: Double(ended - timeline.started) / 1e9)
        return Int32(outcome.status)
    }

    /// One line for people; quiet when the guest did what was asked.
    private static func sayGoodbye(_ outcome: Outcome, _ options: Options, seconds: Double) {
        let level: LogLevel =
            switch outcome.end {
            case _ where outcome.isLoss: .error
            case .poweredOff, .exited: .info
            case .rebooted, .panicked, .stopped: .warning
            case .tripleFault, .failed: .error
            }
        guard level >= options.logLevel else { return }
        let tenths = Int(seconds * 10)
        let text = outcome.explanation ?? "\(outcome.end)"
        let time = "\(tenths / 10).\(tenths % 10) s"
        HostIO.tell("mingle: \(options.configuration.name): after \(time): \(text)\n")
    }

    private static func fail(_ text: String, _ status: ExitStatus) -> Never {
        HostIO.tell("mingle: error: \(text)\n")
        exit(status.code)
    }
}
