import Glibc

/// Guests that are started at once: how long until the last is up, with sharing off, with KSM at full speed, with Mingle's, in
/// turns. And then, how long until 95 % of what can be saved is.
struct TogetherBenchmark {
    let programs: Programs
    let count: Int
    /// What `mingle density --image` takes.
    let image: String
    /// Seconds that guests go on after the last is up.
    let watch: Int

    private func run(_ merging: Merging) throws -> DensityResult {
        try DensityRun(
            programs: programs, guests: count, image: image, seconds: watch, options: ["--overcommit"]
        )
        .result(merging)
    }

    func run(rounds: Int) throws {
        var up: [Merging: [Double]] = [:]
        var settled: [Merging: [Double]] = [:]
        var saved: [Merging: [Double]] = [:]
        for _ in 0..<rounds {
            for merging in [Merging.off, .builtin] + (geteuid() == 0 ? [.ksm] : []) {
                let result = try run(merging)
                let times = result.guests.compactMap(\.boot_seconds)
                guard times.count == count, let last = times.max() else { throw Failure("not all were up") }
                up[merging, default: []].append(last * 1000)
                saved[merging, default: []].append(Double(result.engine.samples.last?.saved_pages ?? 0) / 256)
                if let time = result.engine.seconds_to_95_percent {
                    settled[merging, default: []].append(time * 1000)
                }
            }
        }
        let off = median(up[.off] ?? [])
        var table = Table(
            "\(count) x \(image) at once, \(rounds) rounds", "last is up: median", "worst", "of off",
            "then to 95 %", "saved at the end")
        for merging in [Merging.off, .ksm, .builtin] {
            guard let times = up[merging] else { continue }
            let ends = settled[merging] ?? []
            table.add(
                "sharing \(merging.rawValue)", seconds(median(times)), seconds(times.max() ?? 0),
                "\(Int((median(times) / off * 100).rounded())) %",
                merging == .off
                    ? "" : ends.count == times.count ? seconds(median(ends)) : "not in \(watch) s",
                merging == .off ? "" : "\(Int(median(saved[merging] ?? []).rounded())) MiB")
        }
        table.show()
    }
}
