import LinuxHost
import CLinux

/// A control group for one run: the kernel's own sum of what guests and broker take. Needs root, and a hierarchy that
/// counts memory: version 2, or version 1 where that is what the host has.
struct ControlGroup {
    /// What it says; bytes.
    struct Figures: Equatable, Sendable {
        var currentBytes: UInt64 = 0
        var kernelBytes: UInt64 = 0
        /// Pages of files: programs, images. Without shared memory, which is what guests are made of.
        var fileBytes: UInt64 = 0

        init() {}

        /// Reads `memory.current` and `memory.stat` of version 2.
        init?(current: String, statistics: String) {
            guard let current = UInt64(current.prefix { $0.isNumber }) else { return nil }
            let found = SmallFile.table(statistics)
            currentBytes = current
            kernelBytes = found["kernel"] ?? 0
            fileBytes = (found["file"] ?? 0) - min(found["shmem"] ?? 0, found["file"] ?? 0)
        }

        /// Reads the files of version 1, whose `cache` holds shared memory, too.
        init?(usage: String, kernel: String, statistics: String) {
            guard let usage = UInt64(usage.prefix { $0.isNumber }) else { return nil }
            let found = SmallFile.table(statistics)
            currentBytes = usage
            kernelBytes = UInt64(kernel.prefix { $0.isNumber }) ?? 0
            fileBytes = (found["cache"] ?? 0) - min(found["shmem"] ?? 0, found["cache"] ?? 0)
        }
    }

    enum Version: Sendable { case one, two }

    let path: String
    private let parent: String
    private let version: Version

    /// Makes one; the reason when that is not possible.
    static func make(_ name: String, root: String = "/sys/fs/cgroup", own: String = "/proc/self/cgroup")
        -> Result<ControlGroup, Reason>
    {
        guard geteuid() == 0 else { return .failure(Reason("only root can make control groups of its own")) }
        guard let text = SystemCall.text(of: own) else { return .failure(Reason("\(own) cannot be read")) }
        var reason = "no hierarchy of control groups counts memory"
        for line in text.split(separator: "\n") {
            let fields = line.split(separator: ":", maxSplits: 2, omittingEmptySubsequences: false)
            guard fields.count == 3 else { continue }
            let group = fields[2] == "/" ? "" : String(fields[2])
            let found: (parent: String, move: String, Version)?
            if fields[1].isEmpty {
                let base = SystemCall.exists(root + "/cgroup.controllers") ? root : root + "/unified"
                found = delegating(base, group).map { ($0, base + group, .two) }
            } else if fields[1].split(separator: ",").contains("memory") {
                let path = root + "/memory" + group
                found = SystemCall.exists(path + "/memory.usage_in_bytes") ? (path, path, .one) : nil
            } else {
                continue
            }
            guard let found else { continue }
            switch makeUnused(found.parent + "/" + name) {
            case .success(let path):
                return .success(ControlGroup(path: path, parent: found.move, version: found.2))
            case .failure(let problem): reason = problem.description
            }
        }
        return .failure(Reason(reason))
    }

    /// Makes a group of this name, or of one like it when somebody else (of another PID namespace) uses that.
    private static func makeUnused(_ path: String) -> Result<String, Reason> {
        for attempt in 0..<100 {
            let unused = attempt == 0 ? path : "\(path)-\(attempt)"
            guard case .failure(let error) = SystemCall.makeDirectory(unused) else { return .success(unused) }
            if error.code == EEXIST { continue }
            return .failure(Reason("\(unused) cannot be made: \(LinuxError.message(error.code))"))
        }
        return .failure(Reason("\(path) is in use"))
    }

    /// The nearest group, from our own upwards, whose children have memory counted.
    private static func delegating(_ base: String, _ group: String) -> String? {
        var group = group
        while true {
            let words = (SystemCall.text(of: base + group + "/cgroup.subtree_control") ?? "").split {
                $0 == " " || $0 == "\n"
            }
            if words.contains("memory") { return base + group }
            guard let slash = group.lastIndex(of: "/") else { return nil }
            group = String(group[..<slash])
        }
    }

    struct Reason: Error, CustomStringConvertible {
        let description: String
        init(_ description: String) { self.description = description }
    }

    /// What this process starts now belongs to it.
    func enter() -> Result<Void, Reason> { move(to: path) }
    func leave() -> Result<Void, Reason> { move(to: parent) }

    private func move(to group: String) -> Result<Void, Reason> {
        SystemCall.overwrite(group + "/cgroup.procs", with: "\(Console.process)").mapError {
            Reason("this process cannot be moved to \(group): \(LinuxError.message($0.code))")
        }
    }

    func figures() -> Figures? {
        func text(_ name: String) -> String { SystemCall.text(of: path + "/" + name) ?? "" }
        switch version {
        case .two: return Figures(current: text("memory.current"), statistics: text("memory.stat"))
        case .one:
            return Figures(
                usage: text("memory.usage_in_bytes"), kernel: text("memory.kmem.usage_in_bytes"),
                statistics: text("memory.stat"))
        }
    }

    /// Removes a group; its processes may take a moment to be gone.
    static func remove(_ path: String) -> Bool {
        for _ in 0..<200 {
            if SystemCall.removeDirectory(path) || !SystemCall.exists(path) { return true }
            SystemCall.sleep(milliseconds: 10)
        }
        return false
    }
}
