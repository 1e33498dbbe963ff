internal import CLinux
internal import Glibc

/// A control group of the broker's own (docs/broker.md): frames are charged to it and not to the guest that happened to
/// start the broker, and limits of the starter's groups are left where the kernel allows it.
package struct OwnCgroup {
    private static let prefix = "mingle-broker."
    /// linux/magic.h: CGROUP_SUPER_MAGIC, CGROUP2_SUPER_MAGIC
    private static let fileSystems: [Int] = [0x27e0eb, 0x6367_7270]

    /// Its folder.
    package let path: String
    /// Where this process may be when the group goes, the best first.
    private let homes: [String]

    /// Leaves the groups of version 1 with limits that are none of memory.
    package static func leaveLimits() {
        let host = HostSize()
        for hierarchy in ControlGroupHierarchy.all()
        where hierarchy.version == .one && !hierarchy.controllers.contains("memory") {
            guard let group = hierarchy.group() else { continue }
            let chain = hierarchy.upwards(group)
            // Whoever freezes the starter's group means the starter.
            let isFrozenTogether = hierarchy.controllers.contains("freezer") && chain.count > 1
            guard isFrozenTogether || chain.contains(where: { !hierarchy.limits(of: $0.group, host).isEmpty })
            else { continue }
            let best = isFrozenTogether ? chain.reversed() : ranked(chain, hierarchy, host)
            for place in best where place.group != group {
                if move(to: place.folder) { break }
            }
        }
    }

    /// Makes a group and moves this process into it, outside of as many limits as possible.
    /// - Parameter stays: not outside of the group that this process is in, if that can be.
    package init?(stays: Bool) {
        guard let hierarchy = ControlGroupHierarchy.ofMemory(), let group = hierarchy.group() else {
            return nil
        }
        let chain = hierarchy.upwards(group)
        let places = chain.filter { hierarchy.countsMemory(below: $0.folder) }
        let order = stays ? places.filter { $0.group == group } : Self.ranked(places, hierarchy, HostSize())
        for place in order {
            guard let made = Self.make(in: place.folder, hierarchy.usageFile) else { continue }
            path = made
            homes = chain.map(\.folder)
            return
        }
        return nil
    }

    /// That of a worker whose supervisor was lost, and who started this process: it was born there, and removes it at the end.
    package static func adopted() -> OwnCgroup? {
        guard isOurs, let hierarchy = ControlGroupHierarchy.ofMemory(), let group = hierarchy.group(),
            let folder = hierarchy.folder(of: group)
        else { return nil }
        return OwnCgroup(path: folder, homes: hierarchy.upwards(group).dropFirst().map(\.folder))
    }

    private init(path: String, homes: [String]) {
        self.path = path
        self.homes = homes
    }

    /// Those first that have the fewest limits at and above them; of equals, the nearest.
    private static func ranked(
        _ places: [(group: String, folder: String)], _ hierarchy: ControlGroupHierarchy, _ host: HostSize
    ) -> [(group: String, folder: String)] {
        let counted = places.map { place in
            (
                place,
                hierarchy.upwards(place.group).filter { !hierarchy.limits(of: $0.group, host).isEmpty }.count
            )
        }
        return counted.enumerated().sorted { ($0.element.1, $0.offset) < ($1.element.1, $1.offset) }
            .map(\.element.0)
    }

    /// - Returns: the folder of a group that counts memory and that this process now belongs to.
    private static func make(in parent: String, _ usageFile: String) -> String? {
        // SAFETY: a NUL-terminated copy for the time of the call.
        guard fileSystems.contains(unsafe mingle_filesystem_type(parent)) else { return nil }
        removeLeftovers(in: parent)
        let path = parent + "/" + prefix + String(getpid())
        if case .failure(let error) = SystemCall.makeDirectory(path), error.code != EEXIST { return nil }
        if SystemCall.exists(path + "/" + usageFile), move(to: path) { return path }
        _ = SystemCall.removeDirectory(path)
        return nil
    }

    private static func move(to folder: String) -> Bool {
        if case .success = ControlGroupHierarchy.move(to: folder) { true } else { false }
    }

    /// Removes the groups of brokers that were killed; one that is in use cannot be removed.
    private static func removeLeftovers(in directory: String) {
        guard case .success(let names) = SystemCall.names(in: directory) else { return }
        for name in names where name.hasPrefix(prefix) {
            guard let process = Int32(name.dropFirst(prefix.count)), kill(process, 0) != 0, errno == ESRCH
            else { continue }
            _ = SystemCall.removeDirectory(directory + "/" + name)
        }
    }

    /// Removes the group that a killed broker wrote down. Nothing else is ever removed by it.
    package static func removeLeftover(_ path: String) {
        // SAFETY: a NUL-terminated copy for the time of the call.
        guard path.hasPrefix("/"), path.split(separator: "/").last?.hasPrefix(prefix) == true,
            fileSystems.contains(unsafe mingle_filesystem_type(path))
        else { return }
        // A group that is in use cannot be removed.
        _ = SystemCall.removeDirectory(path)
    }

    /// Removes it, when no other process is in it any more.
    package func remove() {
        for home in homes where Self.move(to: home) { break }
        for _ in 0..<50 {
            if SystemCall.removeDirectory(path) || errno != EBUSY { return }
            Pause.sleep(nanoseconds: 10_000_000)
        }
    }

    /// Whether this process is in such a group.
    package static var isOurs: Bool {
        guard let hierarchy = ControlGroupHierarchy.ofMemory(), let group = hierarchy.group(),
            hierarchy.folder(of: group) != nil
        else { return false }
        return group.split(separator: "/").last?.hasPrefix(prefix) ?? false
    }
}
