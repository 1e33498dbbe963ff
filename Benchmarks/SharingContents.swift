/// Guests that stand still: what is saved, how soon, at what price. All begin to be merged at the moment when the last one
/// is up, by Mingle at its default CPU share, by KSM at full speed.
struct SharingContents {
    let programs: Programs
    let options: SharingOptions

    private var gibibytes: Double { Double(options.guests * options.memory) / 1024 }

    static func arguments(_ content: SharingCase) -> String? {
        switch content {
        case .identical: "common=1"
        case .shifted: "shifted=1"
        case .scattered: "common=0.5 unique=0.5 layout=scattered"
        case .zeroHeavy: "zero=0.7 common=0.15 unique=0.15"
        case .unique: "unique=1"
        default: nil
        }
    }

    private func run(_ content: SharingCase, seconds: Int) -> DensityRun {
        DensityRun(
            programs: programs, guests: options.guests, memory: options.memory,
            arguments: Self.arguments(content), seconds: seconds,
            options: ["--share-when-up"] + options.sharing)
    }

    /// What a broker takes for guests that hold nothing; bytes.
    static func bareBroker(_ programs: Programs) throws -> Double {
        try DensityRun(programs: programs, guests: 2, memory: 16, arguments: "zero=0", seconds: 1)
            .result(.builtin).memory.parts.broker_bytes
    }

    /// On a busy machine ksmd may not get far in that time: then once more with three times as much.
    private func ksm(_ content: SharingCase, isDone: Bool) throws -> DensityResult {
        let result = try run(content, seconds: options.ksmSeconds).result(.ksm)
        if isDone || result.engine.seconds_to_95_percent != nil { return result }
        return try run(content, seconds: options.ksmSeconds * 3).result(.ksm)
    }

    func findings(_ content: SharingCase) throws -> [Finding] {
        let off = try run(content, seconds: 1).result(.off)
        let bare = try Self.bareBroker(programs)
        var own: [DensityResult] = []
        var kernel: [DensityResult] = []
        for _ in 0..<options.contentRounds {
            own.append(try run(content, seconds: options.builtinSeconds).result(.builtin))
            kernel.append(try ksm(content, isDone: content == .unique))
        }
        let result = StillGuests(name: content.rawValue, off: off, own: own, kernel: kernel)
        var all = content == .unique ? [result.loss()] : [result.saving(goal: 0.98)]
        if content != .unique {
            // Contents in runs have the stricter goals; those mixed page by page, and zeros among them, the others.
            let isInRuns = content == .identical || content == .shifted
            all.append(result.time(atMost: isInRuns ? 0.25 : 1))
            all.append(result.cpu(atMost: isInRuns ? 0.3 : 1))
        }
        all.append(result.steady(gibibytes: gibibytes, guests: Double(options.guests)))
        all.append(result.metadata(bareBroker: bare))
        return all
    }
}

/// Several runs of the same guests, and what follows from them.
struct StillGuests {
    let name: String
    let off: DensityResult
    let own: [DensityResult]
    let kernel: [DensityResult]

    private func rounds(_ runs: [DensityResult], _ value: (DensityResult) -> Double?) -> Rounds {
        var rounds = Rounds()
        for run in runs { rounds.add(value(run)) }
        return rounds
    }

    private func saved(_ run: DensityResult) -> Double {
        off.memory.resident_bytes - run.memory.resident_bytes
    }

    private func finding(
        _ figure: String, goal: String, _ own: Rounds, _ kernel: Rounds, _ text: (Double) -> String
    )
        -> Finding
    {
        var finding = Finding(figure: "\(name): \(figure)", goal: goal)
        finding.builtin = own.median.map(text) ?? "-"
        finding.ksm = kernel.median.map(text) ?? "-"
        finding.values = ["builtin": own.record, "ksm": kernel.record]
        return finding
    }

    func saving(goal: Double) -> Finding {
        func ratio(_ run: DensityResult) -> Double? {
            run.memory.ideal_saved_bytes > 0 ? saved(run) / run.memory.ideal_saved_bytes : nil
        }
        let (own, kernel) = (rounds(self.own, ratio), rounds(self.kernel, ratio))
        var finding = finding("saved / ideal", goal: "at least \(decimal(goal, 2))", own, kernel) {
            decimal($0, 3)
        }
        finding.off = "ideal " + mebibytes(self.own.map(\.memory.ideal_saved_bytes).max() ?? 0)
        finding.isReached = (own.median ?? 0) >= goal
        let mappings = self.own.compactMap(\.engine.mappings).max() ?? 0
        finding.remark = "\(decimal(mappings, 0)) mappings"
        let others = self.kernel.compactMap(\.engine.pages_of_others).max() ?? 0
        // Of other processes' memory KSM always has some; more than a percent says that its times are not ours alone.
        if others > off.memory.touched_pages / 100 { finding.remark += ", KSM had others' memory to merge" }
        return finding
    }

    /// Where nothing can be saved, sharing costs memory.
    func loss() -> Finding {
        func lost(_ run: DensityResult) -> Double? { -saved(run) / off.memory.resident_bytes * 100 }
        return finding("memory that sharing itself takes", goal: "", rounds(own, lost), rounds(kernel, lost))
        {
            decimal($0, 2) + " %"
        }
    }

    func time(atMost limit: Double) -> Finding {
        let (own, kernel) = (
            rounds(self.own, \.engine.seconds_to_95_percent),
            rounds(self.kernel, \.engine.seconds_to_95_percent)
        )
        var finding = finding(
            "seconds to 95 % of ideal", goal: "at most \(decimal(limit, 2)) x", own, kernel
        ) { decimal($0, 2) + " s" }
        finding.compare(own.median, kernel.median, atMost: limit)
        return finding
    }

    func cpu(atMost limit: Double) -> Finding {
        let (own, kernel) = (
            rounds(self.own, \.engine.cpu_seconds_to_95_percent),
            rounds(self.kernel, \.engine.cpu_seconds_to_95_percent)
        )
        var finding = finding(
            "CPU seconds to get there", goal: "at most \(decimal(limit, 2)) x", own, kernel
        ) {
            decimal($0, 2) + " s"
        }
        finding.compare(own.median, kernel.median, atMost: limit)
        return finding
    }

    /// - Parameters: the memory of all guests, and how many they are: a pass of ours is over one of them, one of ksmd over all.
    func steady(gibibytes: Double, guests: Double) -> Finding {
        let own = rounds(self.own) { $0.steadyPass(gibibytes: gibibytes / guests) }
        let kernel = rounds(self.kernel) { $0.steadyPass(gibibytes: gibibytes) }
        var finding = finding(
            "CPU of a steady pass, per GiB", goal: "at most 0.005 x", own, kernel
        ) { decimal($0 * 1000, 3) + " ms" }
        finding.compare(own.median, kernel.median, atMost: 0.005)
        return finding
    }

    /// - Parameter bareBroker: bytes that the broker takes before it tracks anything.
    func metadata(bareBroker: Double) -> Finding {
        let pages = off.memory.touched_pages
        let vmm = rounds(own) { $0.engine.metadata_bytes / pages }
        let broker = rounds(own) { max(0, $0.memory.parts.broker_bytes - bareBroker) / pages }
        let kernel = rounds(self.kernel) { $0.engine.metadata_bytes / pages }
        var finding = finding(
            "metadata, bytes for each touched page: VMM + broker", goal: "24 + 40", vmm, kernel
        ) { decimal($0, 1) }
        finding.builtin += " + " + (broker.median.map { decimal($0, 1) } ?? "-")
        finding.values["broker"] = broker.record
        finding.isReached = (vmm.median ?? .infinity) <= 24 && (broker.median ?? .infinity) <= 40
        let mappings = rounds(own) { ($0.engine.mappings ?? 0) * 272 / pages }.median ?? 0
        finding.remark = "kernel's mappings \(decimal(mappings, 1)), bare broker \(mebibytes(bareBroker))"
        return finding
    }
}

func mebibytes(_ bytes: Double) -> String { decimal(bytes / 1_048_576, 1) + " MiB" }
