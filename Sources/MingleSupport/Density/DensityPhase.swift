import CLinux
internal import LinuxHost
internal import VMMProtocol

/// The steps of one run of guests, each between two looks at signals and at guests that died.
struct DensityPhase {
    let plan: DensityPlan
    let mode: DensityPlan.Mode
    let fleet: GuestFleet
    /// The broker's socket.
    let broker: String?
    let domain: String
    let ksm: KSM
    let progress: DensityProgress
    private let ksmd: Int32?
    private let ksmBefore: KSMCounters

    init(
        plan: DensityPlan, mode: DensityPlan.Mode, fleet: GuestFleet, broker: String?, domain: String,
        ksm: KSM,
        progress: DensityProgress
    ) {
        self.plan = plan
        self.mode = mode
        self.fleet = fleet
        self.broker = broker
        self.domain = domain
        self.ksm = ksm
        self.progress = progress
        ksmd = mode == .ksm ? ProcessTable.named("ksmd").first : nil
        ksmBefore = KSMCounters(ksm, process: ksmd)
    }

    private struct KSMCounters {
        /// Pages of everybody that are merged.
        let merged: UInt64
        let scans: UInt64
        let scanned: UInt64
        let cpuSeconds: Double

        /// - Parameter process: ksmd.
        init(_ ksm: KSM, process: Int32?) {
            merged = ksm.counter("pages_shared") + ksm.counter("pages_sharing")
            scans = ksm.counter("full_scans")
            scanned = ksm.counter("pages_scanned")
            cpuSeconds = process.flatMap { ProcessTable.cpuSeconds(of: $0) } ?? 0
        }
    }

    private func now() -> UInt64 { Clock.monotonic.nanoseconds }

    /// Waits for a moment; a signal or a dead guest ends the run.
    private func rest(milliseconds: Int) throws(SupportError) {
        if let signal = HostProcess.nextSignal(DensityExperiment.signals, milliseconds: milliseconds) {
            throw .interrupted(signal: signal)
        }
        try fleet.checkAlive()
    }

    /// Waits until all guests said that they are up, however long the host takes for it.
    /// - Throws: when one has had its CPU time, or gets none any more, and is not up.
    func waitUntilUp() throws(SupportError) {
        var patience = BootPatience(limit: DensityPlan.bootSeconds, rest: DensityPlan.restSeconds)
        while true {
            try fleet.checkAlive()
            let up = try fleet.countUp()
            progress.say(mode, "\(up) of \(plan.guests) guests are up", isPassing: up < plan.guests)
            if up == plan.guests { return }
            for member in fleet.members where member.bootSeconds == nil {
                guard let used = ProcessTable.cpuSeconds(of: member.process),
                    let reason = patience.look(member.name, used: used, now: Double(now()) / 1e9)
                else { continue }
                throw .requirement(
                    problem: "only \(up) of \(plan.guests) guests are up: \(member.name) \(reason)",
                    advice: "a guest rings doorbell 1 when it is up; see what it says with mingle run")
            }
            try rest(milliseconds: 10)
        }
    }

    /// All are up: merging begins where it was to wait for that, and guests hear what is typed.
    func begin() throws(SupportError) {
        if mode == .ksm, plan.sharesWhenUp { try ksm.runAtFullSpeed() }
        if mode == .builtin, plan.sharesWhenUp {
            _ = try fleet.each { client throws(SupportError) in try client.ask(.sharing(isOn: true)) }
        }
        guard let line = plan.typed else { return }
        _ = try fleet.each { client throws(SupportError) in try client.ask(.type(line)) }
    }

    /// Lets them run, and notes how much is saved.
    func watch(_ figures: inout RunFigures, every interval: UInt64) throws(SupportError) {
        let start = now()
        let end = start + UInt64(plan.seconds) * 1_000_000_000
        var next = start
        var known: KnownStore?
        while true {
            let started = now()
            if started >= end { return }
            let (pages, work) = try progressOfMerging(&known)
            let seconds = Double(started - start) / 1e9
            figures.series.add(seconds: seconds, pages: pages, work: work)
            let saved =
                mode == .off
                ? "" : ", \(mode == .ksm ? "merged" : "saved") \(ByteSize.format(pages * RunChecks.pageSize))"
            progress.say(mode, "\(Int(seconds)) of \(plan.seconds) s\(saved)", isPassing: true)
            next = min(next + interval, end)
            let finished = now()
            next = max(next, finished)
            try rest(milliseconds: Int((next - finished) / 1_000_000))
        }
    }

    /// What the broker said last: while the guests' counts do not change, it is not asked again, since answers cost it time
    /// that would be counted as work.
    struct KnownStore {
        var sharedPages: UInt64
        var frames: UInt64
        var processes: [Int32]
    }

    /// Pages saved now, by the counts of whoever merges, and its work for that; with KSM, pages merged, which are made
    /// savings of at the end.
    private func progressOfMerging(_ known: inout KnownStore?) throws(SupportError)
        -> (pages: UInt64, work: SavingSeries.Work)
    {
        var work = SavingSeries.Work()
        switch mode {
        case .off: return (0, work)
        case .ksm:
            let counters = KSMCounters(ksm, process: ksmd)
            work.passes = counters.scans - min(counters.scans, ksmBefore.scans)
            work.pagesHashed = counters.scanned - min(counters.scanned, ksmBefore.scanned)
            work.cpuSeconds = counters.cpuSeconds - ksmBefore.cpuSeconds
            return (fleet.members.reduce(0) { $0 + KSMProcess(process: $1.process).mergingPages }, work)
        case .builtin:
            let sharing = SharingFigures.sum(
                try fleet.each { client throws(SupportError) in
                    try client.statistics()
                }.compactMap(\.sharing))
            if known?.sharedPages != sharing.sharedPages, let broker {
                let report = try BrokerReport.read(socket: broker)
                known = KnownStore(
                    sharedPages: sharing.sharedPages,
                    frames: report?.domains.first { $0.name == domain }?.frames ?? 0,
                    processes: report?.processes ?? [])
            }
            let frames = known?.frames ?? 0
            work.passes = sharing.fullScans
            work.pagesHashed = sharing.pagesHashed
            work.brokerCPUSeconds =
                (known?.processes ?? []).reduce(0) { $0 + (ProcessTable.cpuSeconds(of: $1) ?? 0) }
            work.cpuSeconds = sharing.cpuSeconds + work.brokerCPUSeconds
            return (sharing.sharedPages - min(sharing.sharedPages, frames), work)
        }
    }

    /// Everything at one moment: all guests are paused.
    func measure(_ figures: inout RunFigures, _ group: ControlGroup?) throws(SupportError) {
        progress.say(mode, "measuring")
        _ = try fleet.each { client throws(SupportError) in try client.ask(.pause) }
        let statistics = try fleet.each { client throws(SupportError) in try client.statistics() }
        let engines = statistics.compactMap(\.sharing)
        for (engine, member) in zip(engines, fleet.members) {
            if let reason = engine.failure ?? (engine.hasBroker ? nil : engine.brokerError ?? "no broker") {
                throw .guest(name: member.name, reason: "its memory is not shared: \(reason)")
            }
        }
        figures.sharing = .sum(engines)
        var known: KnownStore?
        let (pages, work) = try progressOfMerging(&known)
        figures.series.add(seconds: Double(plan.seconds), pages: pages, work: work)
        try measureMemory(&figures, statistics)
        if mode == .ksm { try measureKSM(&figures) }
        if let group {
            if let found = group.figures() {
                (figures.groupBytes, figures.groupKernelBytes) = (found.currentBytes, found.kernelBytes)
                figures.groupFileBytes = found.fileBytes
            } else {
                figures.groupProblem = "\(group.path) does not say what it holds"
            }
        }
        figures.content = ContentCount(
            try fleet.each { client throws(SupportError) in try client.digests(everyPage: false) })
        _ = try fleet.each { client throws(SupportError) in try client.ask(.resume) }
        try rest(milliseconds: 0)
    }

    private func measureMemory(_ figures: inout RunFigures, _ statistics: [GuestStatistics])
        throws(SupportError)
    {
        for (member, guest) in zip(fleet.members, statistics) {
            guard let process = ProcessFigures(process: member.process) else {
                throw .guest(name: member.name, reason: "/proc does not tell what it takes")
            }
            figures.memory.add(
                vmm: process, homeBytes: guest.homeBytes,
                stagingBytes: ProcessTable.stagingBytes(of: member.process))
        }
        guard let broker, let report = try BrokerReport.read(socket: broker) else { return }
        for process in report.processes {
            if let found = ProcessFigures(process: process) { figures.memory.add(broker: found) }
        }
        guard let store = report.domains.first(where: { $0.name == domain }) else { return }
        figures.memory.storeBytes = store.allocatedBytes
        figures.pagesShared = store.frames
        figures.pagesSharing =
            figures.sharing.pagesMapped - min(figures.sharing.pagesMapped, store.frames)
    }

    /// KSM's own counters are those of the whole host, where others may use it, too: what it merged of our guests is
    /// counted by their frames.
    private func measureKSM(_ figures: inout RunFigures) throws(SupportError) {
        let counters = KSMCounters(ksm, process: ksmd)
        let frames = try MergedFrames(processes: fleet.members.map(\.process))
        let processes = fleet.members.map { KSMProcess(process: $0.process) }
        let merging = processes.reduce(0) { $0 + $1.mergingPages }
        figures.pagesShared = frames.shared
        figures.pagesSharing = frames.sharing
        figures.memory.mergedTwiceBytes = frames.sharing * RunChecks.pageSize
        figures.sharing.fullScans = counters.scans - min(counters.scans, ksmBefore.scans)
        figures.sharing.pagesHashed = counters.scanned - min(counters.scanned, ksmBefore.scanned)
        figures.sharing.pagesMerged = merging
        figures.sharing.cpuSeconds = counters.cpuSeconds - ksmBefore.cpuSeconds
        figures.sharing.pagesUnshared = frames.present - min(frames.present, merging)
        figures.sharing.metadataBytes = processes.reduce(0) { $0 + $1.rmapItems * 64 }
        figures.isMetadataOfKernel = true
        figures.pagesOfOthers = counters.merged - min(counters.merged, merging)
        if merging > 0 { figures.series.scale(Double(frames.sharing) / Double(merging)) }
    }
}

// MARK: verification

extension DensityPhase {
    /// Guests check themselves where they can; then every page is compared with itself after all merging is undone.
    /// - Parameter mayUnmerge: KSM was off before, so that nobody else's pages are unmerged with ours.
    func verify(_ figures: inout RunFigures, mayUnmerge: Bool) throws(SupportError) {
        var sum = PageComparison()
        if plan.checksItself {
            progress.say(mode, "guests check their memory")
            sum = sum + (try selfCheck())
            figures.verificationSteps.append("check of the payload")
        }
        if mode == .builtin || (mode == .ksm && mayUnmerge) {
            progress.say(mode, "comparing all pages with themselves after sharing is off")
            sum = sum + (try compareWithoutSharing())
            figures.verificationSteps.append("digests before and after sharing off")
        }
        figures.verification = sum
    }

    private func selfCheck() throws(SupportError) -> PageComparison {
        let known = fleet.members.map {
            SelfCheck.answers(SystemCall.text(of: $0.serial, limit: 1 << 24) ?? "").count
        }
        _ = try fleet.each { client throws(SupportError) in try client.ask(.type("check")) }
        let deadline = now() + 120_000_000_000
        var sum = PageComparison()
        for (member, known) in zip(fleet.members, known) {
            while true {
                let answers = SelfCheck.answers(SystemCall.text(of: member.serial, limit: 1 << 24) ?? "")
                if answers.count > known {
                    sum = sum + answers[known]
                    break
                }
                guard now() < deadline else {
                    throw .guest(name: member.name, reason: "it did not answer to check")
                }
                try rest(milliseconds: 20)
            }
        }
        return sum
    }

    private func compareWithoutSharing() throws(SupportError) -> PageComparison {
        _ = try fleet.each { client throws(SupportError) in try client.ask(.pause) }
        let before = try fleet.each { client throws(SupportError) in try client.digests(everyPage: true) }
        if mode == .ksm {
            try ksm.unmerge()
        } else {
            _ = try fleet.each { client throws(SupportError) in try client.ask(.sharing(isOn: false)) }
            try waitUntilHome()
        }
        let after = try fleet.each { client throws(SupportError) in try client.digests(everyPage: true) }
        _ = try fleet.each { client throws(SupportError) in try client.ask(.resume) }
        return zip(before, after).reduce(PageComparison()) { $0 + PageComparison(before: $1.0, after: $1.1) }
    }

    private func waitUntilHome() throws(SupportError) {
        let deadline = now() + 120_000_000_000
        while true {
            let sharing = try fleet.each { client throws(SupportError) in try client.statistics() }
                .compactMap(\.sharing)
            if sharing.allSatisfy(\.isHome) { return }
            guard now() < deadline else {
                throw .requirement(
                    problem: "guests' pages were not home after 120 s", advice: "raise --share-cpu")
            }
            try rest(milliseconds: 20)
        }
    }
}

/// What the payload `fill` says when it has checked its pages.
enum SelfCheck {
    /// Every answer in the output, in order. A line that is still being written is none yet.
    static func answers(_ output: String) -> [PageComparison] {
        let whole = output[..<(output.lastIndex(where: \.isNewline) ?? output.startIndex)]
        return whole.split(whereSeparator: \.isNewline).compactMap { line in
            var result = PageComparison()
            if let pages = number(after: "check ok pages=", in: line) {
                result.checked = pages
                return result
            }
            guard let bad = number(after: "check FAILED bad=", in: line) else { return nil }
            (result.checked, result.mismatches) = (bad, bad)
            return result
        }
    }

    private static func number(after words: String, in line: Substring) -> UInt64? {
        guard let range = line.firstRange(of: words) else { return nil }
        return UInt64(line[range.upperBound...].prefix { $0.isNumber })
    }
}
