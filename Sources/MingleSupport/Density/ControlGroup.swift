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

    let path: String
    private let home: String
    private let hierarchy: ControlGroupHierarchy

    /// Makes one; the reason when that is not possible.
    static func make(_ name: String) -> Result<ControlGroup, Reason> {
        guard geteuid() == 0 else {
            return .failure(Reason("only root can make control groups of its own"))
        }
        let none = Reason("no hierarchy of control groups counts memory")
        guard let hierarchy = ControlGroupHierarchy.ofMemory(), let own = hierarchy.group(),
            let home = hierarchy.folder(of: own)
        else { return .failure(none) }
        // The nearest one, from our own upwards, whose children have their memory counted.
        guard let place = hierarchy.upwards(own).first(where: { hierarchy.countsMemory(below: $0.folder) })
        else { return .failure(none) }
        return makeUnused(place.folder + "/" + name).map {
            ControlGroup(path: $0, home: home, hierarchy: hierarchy)
        }
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

    struct Reason: Error, CustomStringConvertible {
        let description: String
        init(_ description: String) { self.description = description }
    }

    /// What this process starts now belongs to it.
    func enter() -> Result<Void, Reason> { move(to: path) }
    func leave() -> Result<Void, Reason> { move(to: home) }

    private func move(to group: String) -> Result<Void, Reason> {
        ControlGroupHierarchy.move(to: group).mapError {
            Reason("this process cannot be moved to \(group): \(LinuxError.message($0.code))")
        }
    }

    func figures() -> Figures? {
        func text(_ name: String) -> String { SystemCall.text(of: path + "/" + name) ?? "" }
        let usage = text(hierarchy.usageFile)
        switch hierarchy.version {
        case .two: return Figures(current: usage, statistics: text("memory.stat"))
        case .one:
            return Figures(
                usage: usage, kernel: text("memory.kmem.usage_in_bytes"), statistics: text("memory.stat"))
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
