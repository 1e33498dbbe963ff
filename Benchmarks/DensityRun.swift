import CLinux
import FoundationEssentials
import Glibc

/// What `mingle density --json` says, as far as it is used here (docs/cli.md).
struct DensityResult: Decodable {
    struct Guest: Decodable {
        let output: String
        let boot_seconds: Double?
    }
    struct Parts: Decodable {
        let broker_bytes: Double
    }
    struct Memory: Decodable {
        let touched_pages: Double
        let resident_bytes: Double
        let host_used_bytes: Double?
        let ideal_saved_bytes: Double
        let parts: Parts
    }
    struct Windows: Decodable {
        let p50: Double
        let p99: Double
        let max: Double
        let count: Double
    }
    struct Sample: Decodable {
        let seconds: Double
        let saved_pages: Double
        let cpu_seconds: Double
        let passes: Double
        let pages_hashed: Double
    }
    struct Engine: Decodable {
        let pages_merged: Double
        let pages_of_others: Double?
        let window_microseconds: Windows?
        let mappings: Double?
        let metadata_bytes: Double
        let seconds_to_95_percent: Double?
        let cpu_seconds_to_95_percent: Double?
        let samples: [Sample]
    }
    let guests: [Guest]
    let memory: Memory
    let engine: Engine
}

extension DensityResult {
    /// CPU seconds of a pass over a GiB of guests that stand still, from the last third of the run; nil if there was no
    /// pass in it.
    /// - Parameter gibibytes: what a pass goes over.
    func steadyPass(gibibytes: Double) -> Double? {
        // The last sample belongs to the end, when everybody is asked everything.
        guard let last = engine.samples.dropLast().last,
            let first = engine.samples.first(where: { $0.seconds >= last.seconds * 2 / 3 }),
            last.passes > first.passes
        else { return nil }
        return (last.cpu_seconds - first.cpu_seconds) / (last.passes - first.passes) / gibibytes
    }

    /// The lines of all guests that begin so, without that beginning.
    func lines(_ start: String) throws -> [Substring] {
        let found = guests.compactMap { guest in
            guest.output.split(whereSeparator: \.isNewline).last { $0.hasPrefix(start) }
        }
        guard found.count == guests.count else {
            throw Failure(
                "a guest did not say '\(start)'; it said: \(guests.map(\.output).joined(separator: " | "))")
        }
        return found.map { $0.dropFirst(start.count) }
    }
}

/// The number behind `key=` in a line of a payload.
func number(_ key: String, in line: Substring) throws -> Double {
    for word in line.split(separator: " ") where word.hasPrefix(key + "=") {
        if let value = Double(word.dropFirst(key.count + 1)) { return value }
    }
    throw Failure("no \(key)= in '\(line)'")
}

/// Who merges in a run.
enum Merging: String, CaseIterable {
    case off, ksm, builtin
}

/// One run of `mingle density`, a process of its own that puts away everything it starts.
struct DensityRun {
    let programs: Programs
    var guests = 4
    /// MiB of each.
    var memory = 128
    var image = "payload:fill"
    var arguments: String?
    var seconds: Int
    /// Further options.
    var options: [String] = []

    func result(_ merging: Merging) throws -> DensityResult {
        let json = programs.scratch + "/density.json"
        let errors = programs.scratch + "/density.errors"
        var words = [
            programs.mingle, "density", "--no-baseline", "--guests", "\(guests)", "--memory", "\(memory)M",
            "--image", image, "--duration", "\(seconds)", "--sharing", merging.rawValue, "--json", json,
        ]
        if let arguments { words += ["--arguments", arguments] }
        words += options
        if merging != .builtin {
            if merging == .off { words.removeAll { $0 == "--share-when-up" } }
            for option in ["--share-cpu", "--window"] {
                if let at = words.firstIndex(of: option) { words.removeSubrange(at...at + 1) }
            }
        }
        _ = unlink(json)
        let process = try MeasuredProcess(words, errors: errors)
        let status = try process.end(within: Double(seconds) + 300)
        guard status == 0 else {
            let said = try contents(errors)
                .split(whereSeparator: \.isNewline).last.map(String.init)
            throw Failure(
                "\(words.dropFirst().joined(separator: " ")): status \(status): \(said ?? "no message")")
        }
        return try JSONDecoder().decode(DensityResult.self, from: Data(contents(json).utf8))
    }
}
