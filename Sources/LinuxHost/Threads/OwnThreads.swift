import CLinux
import Glibc

/// This process's threads as the kernel sees them.
package enum OwnThreads {
    /// A line for each: name, state, what it waits for in the kernel, its CPU time and the time that it waited for a CPU.
    /// Those of root show where in the kernel they are, too.
    package static func describe() -> String {
        var lines: [String] = []
        for thread in names("/proc/self/task") {
            let folder = "/proc/self/task/\(thread)"
            // Behind the name, which may hold anything: the state.
            let state =
                (text("\(folder)/stat") ?? "").split(separator: ")").last?.split(separator: " ").first ?? "?"
            let times = (text("\(folder)/schedstat") ?? "").split(separator: " ").compactMap { UInt64($0) }
            var line =
                "  thread \(text("\(folder)/comm") ?? thread): \(state) in \(text("\(folder)/wchan") ?? "?")"
            if times.count > 1 {
                line += ", ran \(times[0] / 1_000_000) ms, waited for a CPU \(times[1] / 1_000_000) ms"
            }
            let stack = (try? HostIO.lines("\(folder)/stack")) ?? []
            if !stack.isEmpty {
                line +=
                    ": "
                    + stack.prefix(6).compactMap { $0.split(separator: " ").last.map(String.init) }
                    .joined(separator: " < ")
            }
            lines.append(line)
        }
        return lines.joined(separator: "\n")
    }

    /// The first line of a file.
    private static func text(_ path: String) -> String? {
        ((try? HostIO.lines(path)) ?? []).first.map(String.init)
    }

    private static func names(_ folder: String) -> [String] {
        guard let stream = unsafe opendir(folder) else { return [] }
        defer { unsafe closedir(stream) }
        var names: [String] = []
        // SAFETY: an entry is valid until the next readdir of this stream; d_name is NUL-terminated within it.
        while let entry = unsafe readdir(stream) {
            let name = unsafe withUnsafeBytes(of: &entry.pointee.d_name) { bytes in
                unsafe String(decoding: bytes.prefix { $0 != 0 }, as: UTF8.self)
            }
            if !name.hasPrefix(".") { names.append(name) }
        }
        return names
    }
}
