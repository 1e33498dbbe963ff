import Sharing
import CLinux
import Glibc

/// Guests that work while their memory is merged: how much they get done, how long a write takes. One guest a processor,
/// none of which rests, so that merging takes from them what it uses.
struct SharingWork {
    let programs: Programs
    let options: SharingOptions

    private var guests: Int { max(2, sysconf(Int32(_SC_NPROCESSORS_ONLN))) }

    /// In a guest that writes more new pages than this a second, Mingle's engine waits for it to calm down.
    private static let fresh = 1000

    private func work(_ kind: String) -> DensityRun {
        DensityRun(
            programs: programs, guests: guests, memory: 64, image: "payload:work",
            arguments: "kind=\(kind) fresh=\(Self.fresh) seconds=\(options.workSeconds)",
            seconds: options.workSeconds + 1, options: ["--share-when-up", "--type", "go"] + options.sharing)
    }

    private var churn: DensityRun {
        DensityRun(
            programs: programs, guests: guests, memory: 64, image: "payload:churn",
            arguments: "pages=2048 common=0.5 rest=1000 seconds=\(options.workSeconds) after=sleep",
            seconds: options.workSeconds + 1, options: ["--share-when-up"] + options.sharing)
    }

    /// Units a second of all guests.
    private func rate(_ kind: SharingCase, _ result: DensityResult) throws -> Double {
        if kind == .churn {
            return try result.lines("churn: writes=").reduce(0) { sum, line in
                let words = "writes=" + line
                return try sum + number("writes", in: words[...]) + number("checks", in: words[...])
            } / Double(options.workSeconds)
        }
        return try result.lines("work: kind=\(kind.rawValue)").reduce(0) { sum, line in
            try sum + number("done", in: line) / number("us", in: line) * 1e6
        }
    }

    /// Ratio of medians of rounds in turns.
    func throughput(_ kind: SharingCase, atLeast limit: Double) throws -> Finding {
        let run = kind == .churn ? churn : work(kind.rawValue)
        var rates: [Merging: [Double]] = [:]
        var merged = 0.0
        for round in 0..<options.rounds {
            // Another one begins each round, so that what comes and goes on the machine meets all of them.
            let all = Merging.allCases
            for merging in all[(round % all.count)...] + all[..<(round % all.count)] {
                let result = try run.result(merging)
                rates[merging, default: []].append(try rate(kind, result))
                if merging == .builtin { merged += result.engine.pages_merged }
            }
        }
        func share(_ merging: Merging) -> Double { median(rates[merging] ?? []) / median(rates[.off] ?? []) }
        var finding = Finding(
            figure: "throughput while merging: \(kind.rawValue)", goal: "at least \(decimal(limit, 2)) of off"
        )
        finding.builtin = decimal(share(.builtin), 3)
        finding.ksm = decimal(share(.ksm), 3)
        finding.off = decimal(median(rates[.off] ?? []), 0) + "/s"
        finding.isReached = share(.builtin) >= limit
        finding.remark = decimal(merged / Double(options.rounds * guests), 0) + " pages merged in each guest"
        if merged == 0 { (finding.isReached, finding.remark) = (false, "nothing was merged meanwhile") }
        finding.values = Dictionary(uniqueKeysWithValues: rates.map { ($0.key.rawValue, $0.value) })
        return finding
    }

    /// Writes to pages that are merged again and again, and the windows in which a write may have to wait.
    func writes() throws -> [Finding] {
        var windows = Finding(
            figure: "a guest's write blocked by the engine (window), p99 / max, all processors busy",
            goal: "p99 at most 1 ms with userfaultfd")
        var seen = Finding(figure: "the same guests' own writes to these pages, p50 / p99 / p99.9 / max")
        func measure(_ merging: Merging, window: String) throws -> (
            own: String, windows: DensityResult.Windows?
        ) {
            var run = work("write")
            run.options += ["--window", window]
            let result = try run.result(merging)
            _ = try result.lines("work: verify ok")
            let lines = try result.lines("work: write ")
            let quantiles = try ["p50_ns", "p99_ns", "p999_ns", "max_ns"].map { key in
                try lines.map { try number(key, in: $0) }.max() ?? 0
            }
            seen.values[merging == .builtin ? window : merging.rawValue] = quantiles
            return (
                quantiles.map { decimal($0 / 1000, 0) }.joined(separator: " / ") + " µs",
                result.engine.window_microseconds
            )
        }
        seen.off = try measure(.off, window: "auto").own
        seen.ksm = try measure(.ksm, window: "auto").own
        let fault = try measure(.builtin, window: "userfaultfd")
        let pause = try measure(.builtin, window: "pause")
        func text(_ windows: DensityResult.Windows?) -> String {
            windows.map { "\(decimal($0.p99, 0)) / \(decimal($0.max, 0)) µs of \(decimal($0.count, 0))" }
                ?? "-"
        }
        windows.builtin = "userfaultfd \(text(fault.windows)); pause \(text(pause.windows))"
        seen.builtin = "userfaultfd \(fault.own); pause \(pause.own)"
        for (name, found) in [("userfaultfd", fault.windows), ("pause", pause.windows)] {
            if let found { windows.values[name] = [found.p50, found.p99, found.max, found.count] }
        }
        windows.isReached = fault.windows.map { $0.count > 0 && $0.p99 <= 1000 } ?? false
        if let found = fault.windows { windows.remark = "p99 " + decimal(found.p99 / 1000, 2) + " ms" }
        return [windows, seen]
    }

    // MARK: the first write to a merged page

    func firstWrites() throws -> [Finding] {
        let wait = options.ksmSeconds / 2 + 1
        let run = DensityRun(
            programs: programs, guests: 2, memory: 64, image: "payload:cowtime",
            arguments: "zero=2048 common=2048 unique=64 delay=\(wait) after=sleep", seconds: wait + 3,
            options: ["--share-when-up"] + options.sharing)
        var times: [String: [Double]] = [:]
        for _ in 0..<options.rounds {
            for merging in [Merging.ksm, .builtin] {
                let result = try run.result(merging)
                _ = try result.lines("cowtime: verify ok")
                for kind in ["common", "zero"] {
                    for operation in ["write-unread", "write-after-read"] {
                        let lines = try result.lines("cowtime: class=\(kind) op=\(operation)")
                        for quantile in ["p50_ns", "p99_ns"] {
                            let mean =
                                try lines.reduce(0) { try $0 + number(quantile, in: $1) }
                                / Double(lines.count)
                            times["\(merging.rawValue) \(kind) \(operation) \(quantile)", default: []].append(
                                mean)
                        }
                    }
                }
            }
        }
        return [
            firstWrite("common", "write-unread", "not read before", 0.8, times),
            firstWrite("common", "write-after-read", "read before", 1.3, times),
            firstWrite("zero", "write-unread", "zeros, not read before", 0.8, times),
            firstWrite("zero", "write-after-read", "zeros, read before", 1.3, times),
        ]
    }

    private func firstWrite(
        _ kind: String, _ operation: String, _ words: String, _ limit: Double, _ times: [String: [Double]]
    ) -> Finding {
        var finding = Finding(
            figure: "first write to a merged page, \(words), p50 / p99",
            goal: "at most \(decimal(limit, 1)) x")
        func quantiles(_ merging: Merging) -> [Double] {
            ["p50_ns", "p99_ns"].map { median(times["\(merging.rawValue) \(kind) \(operation) \($0)"] ?? []) }
        }
        func text(_ values: [Double]) -> String {
            values.map { decimal($0 / 1000, 1) }.joined(separator: " / ") + " µs"
        }
        let (own, kernel) = (quantiles(.builtin), quantiles(.ksm))
        (finding.builtin, finding.ksm) = (text(own), text(kernel))
        let ratios = zip(own, kernel).map { $0 / $1 }
        finding.remark = ratios.map { decimal($0, 2) }.joined(separator: " / ") + " x KSM"
        finding.isReached = ratios.allSatisfy { $0 <= limit }
        finding.values = ["builtin": own, "ksm": kernel]
        return finding
    }
}
