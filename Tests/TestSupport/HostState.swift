import Foundation

/// What this machine is at, for the message of a wait that failed.
public enum HostState {
    /// How busy it is, what is waited for in the kernel and by whom, its interrupts, what its kernel said last.
    public static var description: String {
        var parts = ["-- \(Pace.description); load \(firstLine("/proc/loadavg"))"]
        parts.append("-- memory: " + lines("/proc/meminfo").prefix(3).joined(separator: ", "))
        parts.append(
            "-- threads (name, state, where it waits in the kernel, ms run, ms waited for a processor):")
        parts += threads()
        parts.append("-- interrupts:")
        parts += lines("/proc/interrupts").filter { line in
            line.split(separator: " ").dropFirst().first { UInt64($0) != nil } != "0"
        }
        let messages = kernelMessages()
        if !messages.isEmpty { parts += ["-- the kernel said last:"] + messages }
        return parts.joined(separator: "\n")
    }

    private static func text(_ path: String) -> String {
        String(decoding: FileManager.default.contents(atPath: path) ?? Data(), as: UTF8.self)
    }
    private static func lines(_ path: String) -> [String] {
        text(path).split(separator: "\n").map(String.init)
    }
    private static func firstLine(_ path: String) -> String { lines(path).first ?? "?" }

    /// Those that run, wait for a disk or similar, or belong to Mingle.
    private static func threads() -> [String] {
        var found: [String] = []
        let manager = FileManager.default
        for process in ((try? manager.contentsOfDirectory(atPath: "/proc")) ?? []).compactMap({ Int($0) })
            .sorted()
        {
            let name = firstLine("/proc/\(process)/comm")
            for thread in (try? manager.contentsOfDirectory(atPath: "/proc/\(process)/task")) ?? [] {
                let folder = "/proc/\(process)/task/\(thread)"
                // Behind the name, which may hold anything.
                let state =
                    text(folder + "/stat").split(separator: ")").last?.split(separator: " ").first ?? "?"
                guard name.hasPrefix("mingle") || ["R", "D", "T"].contains(state) else { continue }
                let times = text(folder + "/schedstat").split(separator: " ").compactMap { UInt64($0) }
                    .prefix(2).map { "\($0 / 1_000_000)" }
                found.append(
                    "\(process)/\(thread) \(name) \(firstLine(folder + "/comm")) \(state) \(firstLine(folder + "/wchan")) "
                        + times.joined(separator: " "))
            }
        }
        return found
    }

    /// The last twelve; none where only root may read them.
    private static func kernelMessages() -> [String] {
        let descriptor = open("/dev/kmsg", O_RDONLY | O_NONBLOCK | O_CLOEXEC)
        guard descriptor >= 0 else { return [] }
        defer { close(descriptor) }
        var messages: [String] = []
        var buffer = [UInt8](repeating: 0, count: 8192)
        // A message a read; EPIPE stands for some that were overwritten. Numbers end at the first semicolon.
        while true {
            let count = read(descriptor, &buffer, buffer.count)
            if count < 0, errno == EPIPE { continue }
            guard count > 0 else { break }
            let line = String(decoding: buffer[..<count], as: UTF8.self).split(separator: "\n").first ?? ""
            messages.append(String(line.drop { $0 != ";" }.dropFirst()))
        }
        return messages.suffix(12)
    }
}
