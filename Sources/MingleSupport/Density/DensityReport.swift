import LinuxHost
public import VMMProtocol

/// What an experiment found, for people and for programs.
public struct DensityReport: Sendable {
    public struct Guest: Equatable, Sendable {
        public var name: String
        public var bootSeconds: Double?
        /// How its process ended.
        public var exit: String
        /// The end of what it wrote on its serial line.
        public var output: String

        public init(name: String, bootSeconds: Double?, exit: String, output: String = "") {
            (self.name, self.bootSeconds, self.exit) = (name, bootSeconds, exit)
            self.output = output
        }
    }

    let plan: DensityPlan
    let guests: [Guest]
    public let run: RunFigures
    let baseline: RunFigures?
    let saving: Saving

    public init(plan: DensityPlan, guests: [Guest], run: RunFigures, baseline: RunFigures?) {
        self.plan = plan
        self.guests = guests
        self.run = run
        self.baseline = baseline
        saving = Saving(run, baseline: baseline)
    }

    /// Seconds from all guests being up to 95 % of the ideal.
    var secondsTo95: Double? {
        run.content.idealSavedPages == 0
            ? nil : run.series.seconds(toReach: 0.95 * Double(run.content.idealSavedPages))
    }

    /// CPU time of whoever merges until then.
    var cpuSecondsTo95: Double? {
        run.content.idealSavedPages == 0
            ? nil : run.series.cpuSeconds(toReach: 0.95 * Double(run.content.idealSavedPages))
    }

    /// Bytes were lost.
    public var hasMismatches: Bool { (run.verification?.mismatches ?? 0) > 0 }

    // MARK: JSON

    public var json: JSONValue {
        .object([
            ("sharing", .string(plan.mode.rawValue)), ("duration_seconds", .integer(Int64(plan.seconds))),
            ("guests", .array(guests.map(guestJSON))), ("memory", memoryJSON), ("engine", engineJSON),
            ("verification", verificationJSON), ("host", .object(plan.hostFacts)),
        ])
    }

    private func guestJSON(_ guest: Guest) -> JSONValue {
        .object([
            ("name", .string(guest.name)), ("image", .string(plan.image)),
            ("memory_bytes", .unsigned(plan.template.memoryBytes)),
            ("cpus", .integer(Int64(plan.template.cpuCount))), ("boot_seconds", .optional(guest.bootSeconds)),
            ("exit", .string(guest.exit)), ("output", .string(guest.output)),
        ])
    }

    private var memoryJSON: JSONValue {
        let page = RunChecks.pageSize
        return .object([
            ("touched_pages", .unsigned(run.content.allocated)),
            ("resident_bytes_sharing_off", .optional(baseline?.memory.residentBytes)),
            ("resident_bytes", .unsigned(run.memory.residentBytes)),
            ("host_used_bytes", run.hostUsedBytes.map { .integer($0) } ?? .null),
            ("pages_shared", .unsigned(run.pagesShared)), ("pages_sharing", .unsigned(run.pagesSharing)),
            ("pages_zero", .unsigned(run.sharing.pagesZero)),
            ("pages_unshared", .unsigned(run.sharing.pagesUnshared)),
            ("pages_volatile", plan.mode == .ksm ? .null : .unsigned(run.sharing.pagesVolatile)),
            ("saved_bytes", .integer(saving.savedBytes)), ("saved_is_measured", .boolean(saving.isMeasured)),
            ("counted_saved_bytes", .unsigned(run.countedSavedPages * page)),
            ("ideal_saved_bytes", .unsigned(saving.idealBytes)),
            ("general_profit_bytes", .integer(saving.profitBytes)),
            ("distinct_pages", .unsigned(run.content.distinct)),
            ("zero_pages_touched", .unsigned(run.content.zero)),
            ("parts", Self.parts(run)), ("parts_sharing_off", baseline.map(Self.parts) ?? .null),
        ])
    }

    /// Where resident_bytes comes from, and what the control group says to it.
    private static func parts(_ run: RunFigures) -> JSONValue {
        let memory = run.memory
        let group: JSONValue =
            if let bytes = run.groupBytes {
                .object([
                    ("current_bytes", .unsigned(bytes)), ("kernel_bytes", .unsigned(run.groupKernelBytes)),
                    ("file_bytes", .unsigned(run.groupFileBytes)),
                    ("unexplained_bytes", run.unexplainedBytes.map { .integer($0) } ?? .null),
                ])
            } else {
                .object([("current_bytes", .null), ("problem", .optional(run.groupProblem))])
            }
        return .object([
            ("home_bytes", .unsigned(memory.homeBytes)),
            ("anonymous_bytes", .unsigned(memory.anonymousBytes)),
            ("swap_bytes", .unsigned(memory.swapBytes)), ("staging_bytes", .unsigned(memory.stagingBytes)),
            ("store_bytes", .unsigned(memory.storeBytes)), ("broker_bytes", .unsigned(memory.brokerBytes)),
            ("merged_twice_bytes", .unsigned(memory.mergedTwiceBytes)),
            ("page_table_bytes", .unsigned(memory.pageTableBytes)), ("cgroup", group),
        ])
    }

    private var engineJSON: JSONValue {
        let figures = run.sharing
        let hasWindows = plan.mode == .builtin
        return .object([
            ("passes", .unsigned(figures.fullScans)), ("pages_hashed", .unsigned(figures.pagesHashed)),
            ("pages_merged", .unsigned(figures.pagesMerged)),
            ("pages_unshared", .unsigned(figures.pagesUnsharedTotal)),
            ("cpu_seconds", .decimal(figures.cpuSeconds)),
            (
                "window_microseconds",
                hasWindows ? figures.windowsJSON : .null
            ),
            ("mappings", hasWindows ? .unsigned(figures.mappings) : .null),
            ("metadata_bytes", .unsigned(figures.metadataBytes)),
            ("seconds_to_95_percent", .optional(secondsTo95)),
            ("cpu_seconds_to_95_percent", .optional(cpuSecondsTo95)), ("samples", samplesJSON),
            ("pages_of_others", plan.mode == .ksm ? .unsigned(run.pagesOfOthers) : .null),
            ("domain", hasWindows ? .string(figures.domain) : .null),
            ("window", hasWindows ? .string(figures.window) : .null),
        ])
    }

    /// Counts since the guests started, every 50 ms.
    private var samplesJSON: JSONValue {
        .array(
            run.series.samples.map { sample in
                .object([
                    ("seconds", .decimal(sample.seconds)), ("saved_pages", .unsigned(sample.pages)),
                    ("cpu_seconds", .decimal(sample.work.cpuSeconds)),
                    ("broker_cpu_seconds", .decimal(sample.work.brokerCPUSeconds)),
                    ("passes", .unsigned(sample.work.passes)),
                    ("pages_hashed", .unsigned(sample.work.pagesHashed)),
                ])
            })
    }

    private var verificationJSON: JSONValue {
        guard let verification = run.verification else { return .null }
        return .object([
            ("pages_checked", .unsigned(verification.checked)),
            ("mismatches", .unsigned(verification.mismatches)),
            ("steps", .array(run.verificationSteps.map { .string($0) })),
        ])
    }

    // MARK: the table

    public var table: String {
        var table = TextTable(["FIGURE", "VALUE"], rightAligned: ["VALUE"])
        func size(_ bytes: Int64) -> String {
            (bytes < 0 ? "-" : "") + ByteSize.format(bytes.magnitude)
        }
        table.add([
            "guests", "\(guests.count) x \(ByteSize.format(plan.template.memoryBytes)), \(plan.image)",
        ])
        table.add(["touched by guests", size(Int64(clamping: run.content.allocated * RunChecks.pageSize))])
        if let baseline {
            table.add(["resident, sharing off", ByteSize.format(baseline.memory.residentBytes)])
        }
        table.add(["resident, sharing \(plan.mode.rawValue)", ByteSize.format(run.memory.residentBytes)])
        table.add(["ideal saving", ByteSize.format(saving.idealBytes)])
        if plan.mode != .off {
            table.add([
                saving.isMeasured ? "saved" : "saved (by the engine's count)", size(saving.savedBytes),
            ])
            table.add(["saved / ideal", saving.ratio.map { Decimals.text($0, places: 3) } ?? "-"])
            table.add(["profit after all metadata", size(saving.profitBytes)])
            table.add([
                "to 95 % of ideal", secondsTo95.map { Decimals.text($0, places: 2) + " s" } ?? "not reached",
            ])
            table.add(["CPU time of merging", Decimals.text(run.sharing.cpuSeconds, places: 2) + " s"])
        }
        if run.pagesOfOthers > 0 {
            table.add([
                "merged for others meanwhile", ByteSize.format(run.pagesOfOthers * RunChecks.pageSize),
            ])
        }
        if plan.mode == .builtin {
            table.add([
                "window (\(run.sharing.window)), p50 / p99 / max",
                [run.sharing.windowMedian, run.sharing.window99, run.sharing.windowMaximum]
                    .map { Decimals.text($0, places: 0) }.joined(separator: " / ") + " us",
            ])
            table.add(["mappings of guest memory", "\(run.sharing.mappings)"])
        }
        if let bytes = run.groupBytes, let rest = run.unexplainedBytes {
            table.add(["control group", "\(ByteSize.format(bytes)), unexplained \(size(rest))"])
        } else if let problem = run.groupProblem {
            table.add(["control group", "not used: \(problem)"])
        }
        if let verification = run.verification {
            table.add(["verified", "\(verification.checked) pages, \(verification.mismatches) mismatches"])
        }
        return table.text
    }
}

/// Numbers for people.
public enum Decimals {
    /// With so many digits behind the point.
    public static func text(_ number: Double, places: Int) -> String {
        guard number.isFinite, number.magnitude < 1e15 else { return "-" }
        var scale: Int64 = 1
        for _ in 0..<places { scale *= 10 }
        let scaled = Int64((number.magnitude * Double(scale)).rounded())
        let sign = number < 0 && scaled > 0 ? "-" : ""
        guard places > 0 else { return sign + "\(scaled)" }
        let digits = "\(scaled % scale)"
        return sign + "\(scaled / scale)." + String(repeating: "0", count: places - digits.count) + digits
    }
}
