import CLinux
internal import LinuxHost
internal import VMMProtocol
internal import GuestMemory

/// Runs N guests side by side and measures what they take: first with sharing off, then with it.
///
/// ```
///  start all -> all are up -> sample for a while -> pause all: measure, digest -> verify -> resume -> power off
/// ```
/// Whatever ends it, all of its processes, files and settings are put away.
public final class DensityExperiment {
    static let signals = [SIGINT, SIGTERM, SIGHUP]
    /// Nanoseconds between two looks at how much is saved.
    private static let sampling: UInt64 = 50_000_000

    private let plan: DensityPlan
    private let directory: StateDirectory
    private let console: Console
    private let progress: DensityProgress
    private let program: String
    private var lease: KSMLease?
    private let ksm = KSM()

    public init(_ plan: DensityPlan, directory: StateDirectory, console: Console) throws(SupportError) {
        self.plan = plan
        self.console = console
        self.directory = directory
        progress = DensityProgress()
        program = try Companion.vmm.path()
    }

    /// Does everything.
    public func run() throws(SupportError) -> DensityReport {
        try directory.prepare()
        Workspace.sweep(directory)
        HostProcess.block(Self.signals)
        let workspace = try Workspace(in: directory)
        defer { workspace.remove() }
        defer { progress.end() }
        if plan.mode == .ksm { lease = try KSMLease(ksm, in: directory) }
        do throws(SupportError) {
            var baseline: RunFigures?
            if plan.hasBaseline, plan.mode != .off { baseline = try runGuests(.off, workspace).figures }
            let (figures, guests) = try runGuests(plan.mode, workspace)
            try lease?.end()
            lease = nil
            return DensityReport(plan: plan, guests: guests, run: figures, baseline: baseline)
        } catch {
            try lease?.end()
            throw error
        }
    }

    /// Guests of one run.
    private func runGuests(_ mode: DensityPlan.Mode, _ workspace: Workspace) throws(SupportError)
        -> (figures: RunFigures, guests: [DensityReport.Guest])
    {
        var figures = RunFigures()
        let usedBefore = HostUse.bytes()
        let group = makeGroup(mode, workspace, &figures)
        defer { if let group { _ = ControlGroup.remove(group.path) } }
        let ownBroker = mode == .builtin && plan.domain == nil
        let fleet = GuestFleet(registry: directory)
        defer {
            fleet.end()
            if ownBroker { BrokerService.end(in: workspace.path) }
        }
        if mode == .ksm, !plan.sharesWhenUp { try ksm.runAtFullSpeed() }
        let broker = try start(mode, fleet, workspace, group)
        let phase = DensityPhase(
            plan: plan, mode: mode, fleet: fleet, broker: broker, domain: domain, ksm: ksm, progress: progress
        )
        do throws(SupportError) {
            try phase.waitUntilUp()
            try phase.begin()
            try phase.watch(&figures, every: Self.sampling)
            try phase.measure(&figures, group)
            figures.hostUsedBytes = HostUse.growth(since: usedBefore)
            if plan.verifies { try phase.verify(&figures, mayUnmerge: lease?.wasOff ?? false) }
        } catch {
            // A guest that ended is also one that does not answer: its end says more.
            if case .guest = error { try fleet.waitForEnd(milliseconds: 500) }
            throw error
        }
        progress.say(mode, "powering off")
        fleet.powerOff(seconds: (plan.template.graceSeconds ?? 5) + 5)
        let guests = fleet.members.map {
            DensityReport.Guest(
                name: $0.name, bootSeconds: $0.bootSeconds,
                exit: $0.ending.map(GuestFleet.words) ?? "unknown", output: $0.latestOutput
            )
        }
        return (figures, guests)
    }

    private var domain: String { plan.domain ?? "density" }

    private func makeGroup(_ mode: DensityPlan.Mode, _ workspace: Workspace, _ figures: inout RunFigures)
        -> ControlGroup?
    {
        switch ControlGroup.make("mingle-\(workspace.name)-\(mode.rawValue)") {
        case .success(let group):
            try? workspace.note(group: group.path)
            return group
        case .failure(let reason):
            figures.groupProblem = reason.description
            return nil
        }
    }

    /// Starts broker and guests, in the control group if there is one.
    /// - Returns: the broker's socket.
    private func start(
        _ mode: DensityPlan.Mode, _ fleet: GuestFleet, _ workspace: Workspace, _ group: ControlGroup?
    ) throws(SupportError) -> String? {
        // What is started here belongs to the group that we are in at that moment.
        if let group, case .failure(let reason) = group.enter() {
            throw .requirement(problem: reason.description, advice: "see cgroups(7)")
        }
        defer { _ = group?.leave() }
        // From the group that guests will be in; until all of them are registered and counted.
        let lock = try AdmissionLock.take(in: directory)
        let warning = try Admission(registry: GuestRegistry(directory: directory)).check(
            guests: plan.guests, memoryBytes: plan.template.memoryBytes, overcommits: plan.overcommits)
        if let warning { console.log(.warning, warning) }
        var broker: String?
        if mode == .builtin {
            let isOwn = plan.domain == nil
            // One of the experiment alone is part of what is measured.
            broker = try BrokerService.ensureRunning(
                in: isOwn ? StateDirectory(path: workspace.path) : directory, staysInGroup: isOwn)
        }
        for index in 0..<plan.guests {
            var invocation = plan.template
            invocation.name = "\(workspace.name)-\(index)"
            invocation.guestIndex = UInt32(index)
            invocation.image = plan.image
            invocation.sharing = SharingChoice()
            if mode == .builtin {
                invocation.sharing.mode = .builtin
                invocation.sharing.waits = plan.sharesWhenUp
                invocation.sharing.domain = domain
                invocation.sharing.cpuPercent = plan.cpuPercent
                invocation.sharing.window = plan.window
                invocation.sharing.broker = broker
            }
            invocation.ram = mode == .ksm ? .anonymousMergeable : nil
            invocation.overcommits = plan.overcommits
            if let data = plan.data {
                invocation.commandLine = [invocation.commandLine, data.word(guest: index)].compactMap(\.self)
                    .joined(separator: " ")
            }
            try fleet.start(
                invocation, program: program, output: workspace.file("\(mode.rawValue)-\(index)"))
        }
        try fleet.waitUntilRegistered(seconds: 10)
        _ = consume lock
        return broker
    }
}

/// What an experiment tells while it runs: one line that changes on a terminal, else plain lines, fewer of them.
final class DensityProgress {
    private let isTerminal = Console.isTerminal(2)
    private var isOpen = false
    private var latest: UInt64 = 0
    private var latestText = ""
    private static let plainInterval: UInt64 = 5_000_000_000
    private static let terminalInterval: UInt64 = 200_000_000

    /// - Parameter isPassing: it may be left out when there was one a moment ago.
    func say(_ mode: DensityPlan.Mode, _ text: String, isPassing: Bool = false) {
        let now = Clock.monotonic.nanoseconds
        let interval = isTerminal ? Self.terminalInterval : Self.plainInterval
        if isPassing, now < latest + interval { return }
        if !isPassing, text == latestText { return }
        (latest, latestText) = (now, text)
        let line = "density, sharing \(mode.rawValue): \(text)"
        if isTerminal {
            // A terminal that does not know its size says 0.
            let columns = Console.terminalSize(2).map { Int($0.columns) } ?? 0
            let width = columns > 0 ? columns : 80
            Console.show("\r\u{1b}[K" + line.prefix(max(20, width - 1)))
            isOpen = true
        } else {
            Console.write("mingle: " + line)
        }
    }

    /// Leaves an empty line to whoever writes next.
    func end() {
        if isOpen { Console.show("\r\u{1b}[K") }
        isOpen = false
    }
}
