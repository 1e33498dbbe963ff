import Sharing
import CLinux
import FoundationEssentials
import LinuxHost
import Glibc

/// What `mingle-bench sharing` can measure.
enum SharingCase: String, CaseIterable {
    // Guests that stand still.
    case identical, shifted, scattered
    case zeroHeavy = "zero-heavy"
    case unique
    // Guests that work.
    case cpu, memory, churn
    // Single accesses, and parts of the engine.
    case cow, write, sweep, remap
    // Linux: where it runs.
    case linux
    case linuxData = "linux-data"

    static let payloads = allCases.filter { $0 != .linux && $0 != .linuxData }
}

struct SharingOptions {
    var cases = SharingCase.payloads
    /// Of everything that is compared in turns; guests that stand still make do with fewer, since they differ less.
    var rounds = 3
    var guests = 4
    /// MiB of each.
    var memory = 128
    var json: String?
    /// Options of sharing for `mingle density`.
    var sharing: [String] = []
    /// How long guests run: until well after whoever merges is done, mappings arranged too, with some passes in
    /// which nothing changes.
    var builtinSeconds = 12
    var ksmSeconds = 8
    var workSeconds = 4
    var linuxSeconds = 30
    /// What Linux guests run: linux, or a kernel's file.
    var image = "linux"

    var contentRounds: Int { (rounds + 1) / 2 }

    /// Reads the words behind `sharing`; nil if they are none of ours.
    init?(_ words: [String]) {
        var rest = words[...]
        while let option = rest.popFirst() {
            guard let value = rest.popFirst() else { return nil }
            func number(_ range: ClosedRange<Int>) -> Int? {
                Int(value).flatMap { range.contains($0) ? $0 : nil }
            }
            switch option {
            case "--cases":
                let found = value.split(separator: ",").map { SharingCase(rawValue: String($0)) }
                guard !found.isEmpty, !found.contains(nil) else { return nil }
                cases = found.compactMap(\.self)
            case "--json": json = value
            case "--image": image = value
            case "--share-cpu": sharing += [option, value]
            case "--rounds": if let found = number(1...100) { rounds = found } else { return nil }
            case "--guests": if let found = number(2...64) { guests = found } else { return nil }
            case "--memory": if let found = number(16...16384) { memory = found } else { return nil }
            case "--ksm-seconds": if let found = number(2...3600) { ksmSeconds = found } else { return nil }
            case "--linux-seconds":
                if let found = number(2...3600) { linuxSeconds = found } else { return nil }
            default: return nil
            }
        }
    }
}

/// Mingle's merging, the kernel's, and none, side by side in one run; docs/benchmarks.md says what each figure is.
struct SharingBenchmark {
    let programs: Programs
    let options: SharingOptions
    let words: [String]

    /// - Returns: whether all could be measured.
    /// - Throws: ``Interrupted``.
    func run() throws -> Bool {
        Interrupted.watch()
        print("`mingle-bench sharing \(words.joined(separator: " "))`: \(Self.host())\n")
        print(Finding.heading)
        var findings: [Finding] = []
        let start = monotonicNanoseconds()
        for item in options.cases {
            let found: [Finding]
            do {
                found = try measure(item)
            } catch let error as Interrupted {
                try save(findings)
                throw error
            } catch { found = [.failed(item.rawValue, error)] }
            for finding in found { print(finding.line) }
            fflush(nil)
            findings += found
        }
        try save(findings)
        let missed = findings.count { $0.isReached == false }
        let failed = findings.count { $0.failure != nil }
        print(
            "\n\(findings.count { $0.isReached == true }) goals reached, \(missed) not, \(failed) cases failed; "
                + "\((monotonicNanoseconds() - start) / 1_000_000_000) s")
        return failed == 0
    }

    private func measure(_ item: SharingCase) throws -> [Finding] {
        let work = SharingWork(programs: programs, options: options)
        let speed = EngineSpeed(programs: programs, options: options)
        switch item {
        case .identical, .shifted, .scattered, .zeroHeavy, .unique:
            return try SharingContents(programs: programs, options: options).findings(item)
        case .cpu: return [try work.throughput(item, atLeast: 0.98)]
        case .memory: return [try work.throughput(item, atLeast: 0.95)]
        case .churn: return [try work.throughput(item, atLeast: 0.90)]
        case .cow: return try work.firstWrites()
        case .write: return try work.writes()
        case .sweep: return [try speed.sweep()]
        case .remap: return [try speed.remap()]
        case .linux: return try SharingLinux(programs: programs, options: options).idle()
        case .linuxData: return try SharingLinux(programs: programs, options: options).withData()
        }
    }

    private struct Record: Encodable {
        let words: [String]
        let host: String
        let findings: [Finding]
    }

    private func save(_ findings: [Finding]) throws {
        guard let path = options.json else { return }
        let encoder = JSONEncoder()
        encoder.outputFormatting = [.prettyPrinted, .sortedKeys]
        try encoder.encode(Record(words: words, host: Self.host(), findings: findings))
            .write(to: URL(fileURLWithPath: path))
    }

    private static func host() -> String {
        func text(_ path: String) -> String {
            ((try? contents(path)) ?? "").trimmed
        }
        let load = text("/proc/loadavg").split(separator: " ").first.map(String.init) ?? "?"
        return
            "Linux \(text("/proc/sys/kernel/osrelease")), \(sysconf(Int32(_SC_NPROCESSORS_ONLN))) CPUs, load \(load)"
    }
}
