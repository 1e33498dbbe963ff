import LinuxHost
import Foundation
import Glibc
import TestSupport
import Testing

@testable import MingleSupport
import VMMProtocol

private func digest(_ number: UInt64) -> PageDigest { PageDigest(high: number, low: number) }

@Suite("The arithmetic of density")
struct DensityArithmeticTests {
    @Test("counts contents once, zeros apart")
    func content() {
        let count = ContentCount([
            [digest(1), digest(0), digest(2), digest(2)], [digest(1), digest(3), digest(0)],
        ])
        #expect(count.allocated == 7)
        #expect(count.zero == 2)
        #expect(count.distinct == 3)
        #expect(count.idealSavedPages == 4)
        #expect(ContentCount([]).idealSavedPages == 0)
    }

    @Test("reads digests in both halves")
    func digests() {
        let bytes = (0..<16).map { UInt8($0 + 1) }
        #expect(PageDigest(bytes) == PageDigest(high: 0x0102_0304_0506_0708, low: 0x090a_0b0c_0d0e_0f10))
        #expect(PageDigest([UInt8](repeating: 0, count: 16)).isZero)
        #expect(!PageDigest([UInt8](repeating: 0, count: 15) + [1]).isZero)
    }

    @Test("finds every page that differs, and one that has moved")
    func comparison() {
        let before = [digest(1), digest(0), digest(2), digest(0)]
        #expect(PageComparison(before: before, after: before).checked == 2)
        #expect(PageComparison(before: before, after: before).mismatches == 0)
        let changed = PageComparison(before: before, after: [digest(1), digest(0), digest(9), digest(0)])
        #expect(changed.mismatches == 1)
        let moved = PageComparison(before: before, after: [digest(0), digest(1), digest(2), digest(0)])
        #expect(moved.checked == 3)
        #expect(moved.mismatches == 2)
        #expect(PageComparison(before: before, after: Array(before.dropLast())).mismatches == 1)
    }

    @Test("tells when so much was saved first")
    func series() {
        var series = SavingSeries()
        for (index, pages) in [0, 50, 96, 90, 100].enumerated() {
            series.add(seconds: Double(index) / 20, pages: UInt64(pages))
        }
        #expect(series.seconds(toReach: 95) == 0.1)
        #expect(series.seconds(toReach: 101) == nil)
        series.scale(2)
        #expect(series.latestPages == 200)
        #expect(series.seconds(toReach: 95) == 0.05)
    }

    @Test("tells the CPU time that it took, since the first look")
    func seriesOfWork() {
        var series = SavingSeries()
        for (index, pages) in [0, 50, 96].enumerated() {
            var work = SavingSeries.Work()
            work.cpuSeconds = 3 + Double(index) / 4
            series.add(seconds: Double(index), pages: UInt64(pages), work: work)
        }
        #expect(series.cpuSeconds(toReach: 95) == 0.5)
        #expect(series.cpuSeconds(toReach: 97) == nil)
        #expect(SavingSeries().cpuSeconds(toReach: 0) == nil)
    }

    @Test("reads what Linux guests are to hold")
    func guestData() throws {
        let data = try DensityPlan.GuestData("common=8M,unique=4096")
        #expect(data.word(guest: 2) == "mingle.data=8388608,4096,3")
        #expect(try DensityPlan.GuestData("unique=1K").word(guest: 0) == "mingle.data=0,1024,1")
        for text in ["", "common", "common=4G", "common=1,,unique=1", "shared=1M", "common=x"] {
            #expect(throws: SupportError.self, "\(text)") { try DensityPlan.GuestData(text) }
        }
    }

    @Test("counts the host's memory without files that can be had again")
    func hostUse() throws {
        let folder = try TemporaryDirectory()
        try folder.write(
            "proc/meminfo",
            """
            MemTotal:  1000 kB
            MemFree:    300 kB
            Buffers:     20 kB
            Cached:     250 kB
            SwapCached:   0 kB
            Shmem:       50 kB

            """)
        #expect(HostUse.bytes(root: folder.path) == 480 * 1024)
        // As Linux 6.18 writes it.
        try folder.write(
            "proc/zoneinfo",
            """
            Node 0, zone      DMA
              pages free     2816
                    boost    0
              pagesets
                cpu: 0
                          count:    3
                          high:     0
                          batch:    1
            Node 0, zone   Normal
              pagesets
                cpu: 0
                          count:    10
                cpu: 1
                          count:    7

            """)
        #expect(HostUse.bytes(root: folder.path) == 400 * 1024)
        #expect(HostUse.bytes(root: folder.path + "/none") == nil)
        #expect(HostUse.growth(since: nil) == nil)
    }

    private func run(home: UInt64, store: UInt64 = 0, mappings: UInt64 = 0, tables: UInt64 = 0) -> RunFigures
    {
        var figures = RunFigures()
        figures.memory.homeBytes = home
        figures.memory.storeBytes = store
        figures.memory.pageTableBytes = tables
        figures.sharing.mappings = mappings
        figures.content = ContentCount([[digest(1), digest(2)], [digest(1), digest(2)]])
        return figures
    }

    @Test("takes savings from the kernel's counts, and metadata off the profit")
    func measured() {
        let saving = Saving(
            run(home: 4096, store: 8192, mappings: 2, tables: 3000), baseline: run(home: 20480, tables: 1000))
        #expect(saving.isMeasured)
        #expect(saving.savedBytes == 8192)
        #expect(saving.idealBytes == 8192)
        #expect(saving.ratio == 1)
        #expect(saving.profitBytes == 8192 - 2 * Saving.mappingBytes - 2000)
        #expect(Saving(run(home: 30000), baseline: run(home: 20000)).savedBytes == -10000)
    }

    @Test("counts what the engine says where there is nothing to compare with")
    func counted() {
        var figures = run(home: 0)
        figures.pagesSharing = 10
        figures.sharing.pagesZero = 5
        figures.sharing.metadataBytes = 100
        figures.memory.brokerBytes = 1000
        let saving = Saving(figures, baseline: nil)
        #expect(!saving.isMeasured)
        #expect(saving.savedBytes == 15 * 4096)
        #expect(saving.profitBytes == 15 * 4096 - 1100)
    }

    @Test("takes KSM's bookkeeping off, which is in no process")
    func kernelMetadata() {
        var figures = run(home: 4096)
        figures.isMetadataOfKernel = true
        figures.sharing.metadataBytes = 64
        #expect(Saving(figures, baseline: run(home: 8192)).profitBytes == 4096 - 64)
    }

    @Test("adds the parts of what is resident")
    func resident() {
        var memory = MemoryFigures()
        let status = "Name:\tx\nVmSwap:\t      4 kB\nRssAnon:\t    12 kB\nVmPTE:\t 8 kB\n"
        let process = ProcessFigures(status: status)
        #expect(
            process?.anonymousBytes == 12288 && process?.swapBytes == 4096 && process?.pageTableBytes == 8192)
        #expect(ProcessFigures(status: "Name:\tzombie\n") == nil)
        if let process {
            memory.add(vmm: process, homeBytes: 1 << 20, stagingBytes: 4096)
            memory.add(broker: process)
        }
        memory.storeBytes = 100
        #expect(memory.residentBytes == 16384 + 1 << 20 + 4096 + 16384 + 100)
        memory.mergedTwiceBytes = 100
        #expect(memory.residentBytes == 16384 + 1 << 20 + 4096 + 16384)
    }

    @Test("finds the children of a process in both ways, and reads files of any length")
    func children() throws {
        let shell = try startShell("sleep 100 & sleep 100 & wait")
        try #require(eventually { ProcessTable.children(of: shell.identifier).count == 2 })
        let found = ProcessTable.children(of: shell.identifier)
        #expect(found.sorted() == ProcessTable.allChildren(of: shell.identifier).sorted())
        found.forEach { kill($0, SIGKILL) }
        let folder = try TemporaryDirectory()
        for length in [0, 1, 4095, 4096, 4097, 70_000] {
            let text = String(repeating: "ab\n", count: length / 3 + 1).prefix(length)
            let path = try folder.write("text-\(length)", String(text))
            #expect(SystemCall.text(of: path) == String(text))
            #expect(SystemCall.text(of: path, limit: 5000) == String(text.prefix(5000)))
        }
    }

    @Test("compares with the control group")
    func group() throws {
        let two = ControlGroup.Figures(
            current: "1000000\n", statistics: "anon 5\nfile 600\nkernel 70\nshmem 200\n")
        #expect(two?.currentBytes == 1_000_000 && two?.kernelBytes == 70 && two?.fileBytes == 400)
        let one = ControlGroup.Figures(usage: "900\n", kernel: "30\n", statistics: "cache 50\nshmem 45\n")
        #expect(one?.currentBytes == 900 && one?.kernelBytes == 30 && one?.fileBytes == 5)
        #expect(ControlGroup.Figures(current: "max", statistics: "") == nil)
        var figures = run(home: 800)
        (figures.groupBytes, figures.groupKernelBytes, figures.groupFileBytes) = (900, 30, 5)
        #expect(figures.unexplainedBytes == 65)
        #expect(run(home: 1).unexplainedBytes == nil)
    }

    @Test("counts merged frames of mappings that may be merged, alone")
    func frames() {
        let merged = MergedFrames(frames: [7, 7, 8, 7, 9, 9])
        #expect(merged.present == 6 && merged.distinct == 3 && merged.shared == 2 && merged.sharing == 3)
        let smaps = """
            1000-3000 rw-p 00000000 00:00 0
            Size:  8 kB
            VmFlags: rd wr mr mw me mg
            4000-5000 rw-p 00000000 00:00 0 [heap]
            VmFlags: rd wr mr
            """
        #expect(MergedFrames.mergeableRanges(smaps: smaps) == [0x1000..<0x3000])
        let process = KSMProcess("ksm_rmap_items 12\nksm_zero_pages 0\nksm_merging_pages 34\n")
        #expect(process.rmapItems == 12 && process.mergingPages == 34)
    }

    @Test("understands what the payload says of its check")
    func selfCheck() {
        let answers = SelfCheck.answers(
            "fill: ready\r\nfill: check ok pages=12\r\nfill: check FAILED bad=3 first=40\n")
        #expect(answers.count == 2)
        #expect(answers.first?.checked == 12 && answers.first?.mismatches == 0)
        #expect(answers.last?.mismatches == 3)
        #expect(SelfCheck.answers("check\nfill: unknown command").isEmpty)
        #expect(SelfCheck.answers("fill: check ok pages=12").isEmpty)
    }

    @Test("weighs medians, and takes the worst of the rest")
    func sums() {
        var (first, second) = (SharingFigures(), SharingFigures())
        (first.windows, first.windowMedian, first.window99, first.windowMaximum) = (1, 100, 200, 300)
        (second.windows, second.windowMedian, second.window99, second.windowMaximum) = (3, 200, 150, 400)
        (first.pagesMapped, second.pagesMapped) = (5, 6)
        let sum = SharingFigures.sum([first, second])
        #expect(sum.windowMedian == 175 && sum.window99 == 200 && sum.windowMaximum == 400)
        #expect(sum.pagesMapped == 11 && sum.windows == 4)
        #expect(SharingFigures.sum([]).windowMedian == 0)
    }

    @Test(
        "writes numbers with their digits",
        arguments: [
            (0.9265, 3, "0.927"), (12, 0, "12"), (-0.001, 2, "0.00"), (-1.5, 1, "-1.5"), (0.05, 2, "0.05"),
        ])
    func decimals(number: Double, places: Int, text: String) {
        #expect(Decimals.text(number, places: places) == text)
    }
}

@Suite("The report of density")
struct DensityReportTests {
    private func report(_ mode: DensityPlan.Mode, baseline: Bool) -> DensityReport {
        var plan = DensityPlan(
            template: VMMInvocation(name: "", memoryBytes: 64 << 20, cpuCount: 2, kernel: "/k"),
            image: "payload:fill")
        plan.mode = mode
        plan.hostFacts = HostDescription.json(kernelMode: .emulated, window: .pause)
        var run = RunFigures()
        run.content = ContentCount([[digest(1)], [digest(1)]])
        run.pagesSharing = 1
        run.series.add(seconds: 0.5, pages: 1)
        run.verification = PageComparison(before: [digest(1)], after: [digest(1)])
        run.groupProblem = "not today"
        return DensityReport(
            plan: plan, guests: [.init(name: "g", bootSeconds: 1.5, exit: "status 143")], run: run,
            baseline: baseline ? RunFigures() : nil)
    }

    @Test("has every key that is promised", arguments: DensityPlan.Mode.allCases, [true, false])
    func shape(mode: DensityPlan.Mode, baseline: Bool) throws {
        let json = report(mode, baseline: baseline).json
        let promised = [
            "memory": [
                "touched_pages", "resident_bytes_sharing_off", "resident_bytes", "pages_shared",
                "pages_sharing",
                "pages_zero", "pages_unshared", "pages_volatile", "saved_bytes", "ideal_saved_bytes",
                "general_profit_bytes",
            ],
            "engine": [
                "passes", "pages_hashed", "pages_merged", "pages_unshared", "cpu_seconds",
                "window_microseconds",
                "mappings", "metadata_bytes", "seconds_to_95_percent",
            ], "verification": ["pages_checked", "mismatches"],
            "host": ["kernel", "cpu", "memory_bytes", "ring0", "window"],
        ]
        for (part, keys) in promised {
            guard case .object(let pairs)? = json[part] else {
                Issue.record("no object \(part)")
                continue
            }
            for key in keys { #expect(pairs.contains { $0.key == key }, "\(part).\(key)") }
        }
        let guest = try #require(json["guests"]?.elements?.first)
        #expect(guest["image"]?.string == "payload:fill" && guest["memory_bytes"]?.count == 64 << 20)
        #expect(guest["boot_seconds"]?.number == 1.5 && guest["exit"]?.string == "status 143")
        #expect((json["memory"]?["resident_bytes_sharing_off"] != nil) == baseline)
        #expect(json["engine"]?["seconds_to_95_percent"]?.number == 0.5)
        #expect(json["engine"]?["samples"]?.elements?.first?["seconds"]?.number == 0.5)
        #expect((json["engine"]?["window_microseconds"]?["p99"] != nil) == (mode == .builtin))
        #expect(json["memory"]?["parts"]?["cgroup"]?["problem"]?.string == "not today")
    }

    @Test("says in its table why no control group was used")
    func table() { #expect(report(.builtin, baseline: true).table.contains("not used: not today")) }

    @Test("is refused for what cannot be done")
    func limits() throws {
        var plan = DensityPlan(
            template: VMMInvocation(name: "", memoryBytes: 1 << 30, cpuCount: 1, kernel: "/k"), image: "x")
        plan.guests = 256
        try plan.check()
        for guests in [0, 257] {
            plan.guests = guests
            #expect(throws: SupportError.self) { try plan.check() }
        }
        plan.guests = 1
        plan.mode = .ksm
        plan.domain = "lab"
        #expect(throws: SupportError.self) { try plan.check() }
    }
}

@Suite("Guests' statistics")
struct GuestStatisticsTests {
    static let sharing = """
        {"enabled": true, "home": false, "settled": true, "domain": "lab", "window": "pause", "absorbs_gaps": true, \
        "broker_connected": true, "broker_connections": 1, "broker_error": null, "failure": null, "full_scans": 9, \
        "pages_hashed": 10, "pages_merged": 11, "pages_mapped": 12, "pages_zero": 13, "pages_unshared_total": 14, \
        "pages_unshared": 15, "pages_volatile": 16, "pages_rehomed": 17, "mismatches": 0, "mappings": 18, \
        "metadata_bytes": 19, "cpu_seconds": 0.5, "hold": "guest", "guest_lost_seconds": 0.25, \
        "guest_wanted_seconds": 50, "guest_loss_percent": 0.5, "windows": 20, "window_p50_us": 1.5, "window_p99_us": 2.5, \
        "window_max_us": 3.5}
        """
    static func answer(_ name: String, sharing: String) -> String {
        "{\"name\": \"\(name)\", \"state\": \"running\", \"memory_bytes\": 4096, \"home_bytes\": 8, "
            + "\"broker\": \"/b\", \"boot_seconds\": null, \"sharing\": \(sharing)}"
    }

    @Test("are read from the answer of a VMM")
    func reading() throws {
        let guest = try #require(GuestStatistics(json: Self.answer("g", sharing: Self.sharing)))
        #expect(guest.name == "g" && guest.bootSeconds == nil && guest.broker == "/b")
        let sharing = try #require(guest.sharing)
        #expect(sharing.pagesMapped == 12 && sharing.windowMaximum == 3.5 && sharing.sharedPages == 25)
        #expect(GuestStatistics(json: Self.answer("g", sharing: "null"))?.sharing == nil)
        let incomplete = Self.sharing.replacingOccurrences(of: "\"pages_zero\": 13, ", with: "")
        #expect(GuestStatistics(json: Self.answer("g", sharing: incomplete)) == nil)
        #expect(GuestStatistics(json: "error: no") == nil)
    }

    @Test("are told by stats --json with these keys, in this order")
    func shown() throws {
        let guest = try #require(GuestStatistics(json: Self.answer("g", sharing: Self.sharing)))
        let sharing = """
            {"enabled": true, "merges_held": false, "home": false, "domain": "lab", "window": "pause", \
            "broker_connected": true, "broker_error": null, "failure": null, "full_scans": 9, "pages_hashed": 10, \
            "pages_merged": 11, "pages_mapped": 12, "pages_zero": 13, "pages_unshared": 15, \
            "pages_unshared_total": 14, "pages_volatile": 16, "mappings": 18, "put_off_no_memory": 0, \
            "put_off_no_mapping": 0, "metadata_bytes": 19, "cpu_seconds": 0.5, "hold": "guest", \
            "guest_lost_seconds": 0.25, "guest_wanted_seconds": 50.0, "guest_loss_percent": 0.5, \
            "window_microseconds": {"p50": 1.5, "p99": 2.5, "max": 3.5, "count": 20}}
            """
        #expect(
            SharingOverview(guests: [guest], stores: [:]).json.text(levels: 0) == """
                {"guests": [{"name": "g", "state": "running", "memory_bytes": 4096, "home_bytes": 8, \
                "boot_seconds": null, "paused_for": null, "pressure": null, "broker": "/b", \
                "broker_lost": false, "sharing": \(sharing)}], \
                "domains": [{"name": "lab", "guests": ["g"], "pages_shared": null, "pages_sharing": null, \
                "pages_zero": 13, "pages_unshared": 15, "pages_volatile": 16, "store_bytes": null, \
                "saved_bytes": 53248, "cpu_seconds": 0.5, "windows": 20, "mappings": 18}]}
                """)
    }

    @Test("are put together by domain; a guest without one is alone")
    func overview() throws {
        let own = Self.sharing.replacingOccurrences(of: "\"lab\"", with: "\"(its own)\"")
        let guests = try ["a", "b"].map {
            try #require(GuestStatistics(json: Self.answer($0, sharing: Self.sharing)))
        }
        let alone = try ["c", "d"].map { try #require(GuestStatistics(json: Self.answer($0, sharing: own))) }
        let off = try #require(GuestStatistics(json: Self.answer("e", sharing: "null")))
        var store = BrokerReport.Domain()
        (store.name, store.frames, store.references) = ("lab", 8, 24)
        var broker = BrokerReport()
        broker.domains = [store]
        let overview = SharingOverview(guests: guests + alone + [off], stores: ["/b": broker])
        #expect(overview.domains.map(\.name) == ["lab", "(c)", "(d)"])
        #expect(overview.domains[0].guests == ["a", "b"])
        #expect(overview.domains[0].pagesSharing == 16)
        #expect(overview.domains[0].savedBytes == (16 + 26) * 4096)
        #expect(overview.domains[1].savedBytes == 13 * 4096)
        #expect(overview.table.contains("sharing off"))
        var limited = guests
        limited[0].sharing?.putOffNoMemory = 4000
        limited[0].sharing?.putOffNoMapping = 711
        let lines = SharingOverview(guests: limited, stores: [:]).table.split(separator: "\n")
        #expect(lines[0].hasSuffix("PUT OFF") && lines[1].hasSuffix(" 4711") && lines[2].hasSuffix(" 0"))
    }
}
