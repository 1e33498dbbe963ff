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
        // SAFETY: NUL-terminated copies for the time of the calls.
        guard unsafe mkdir(path, 0o700) == 0 || errno == EEXIST else { return nil }
        if unsafe access(path + "/" + usageFile, F_OK) == 0, move(to: path) { return path }
        _ = unsafe rmdir(path)
        return nil
    }

    private static func move(to folder: String) -> Bool {
        do throws(LinuxError) {
            let file = try OwnedDescriptor.open(folder + "/cgroup.procs", flags: O_WRONLY)
            let text = Array(String(getpid()).utf8)
            // SAFETY: the array is alive for the call.
            return unsafe write(file.number, text, text.count) == text.count
        } catch { return false }
    }

    /// Removes the groups of brokers that were killed; one that is in use cannot be removed.
    private static func removeLeftovers(in directory: String) {
        // SAFETY: the path is a NUL-terminated copy; the stream is closed below and used by this thread alone, and an
        // entry is read before the next call replaces it.
        guard let stream = unsafe opendir(directory) else { return }
        defer { unsafe closedir(stream) }
        while let entry = unsafe readdir(stream) {
            let name = unsafe withUnsafeBytes(of: &entry.pointee.d_name) { bytes in
                unsafe String(decoding: bytes.prefix { $0 != 0 }, as: UTF8.self)
            }
            guard name.hasPrefix(prefix), let process = Int32(name.dropFirst(prefix.count)),
                kill(process, 0) != 0, errno == ESRCH
            else { continue }
            _ = unsafe rmdir(directory + "/" + name)
        }
    }

    /// Removes the group that a killed broker wrote down. Nothing else is ever removed by it.
    package static func removeLeftover(_ path: String) {
        // SAFETY: NUL-terminated copies for the time of the calls. A group that is in use cannot be removed.
        guard path.hasPrefix("/"), path.split(separator: "/").last?.hasPrefix(prefix) == true,
            fileSystems.contains(unsafe mingle_filesystem_type(path))
        else { return }
        _ = unsafe rmdir(path)
    }

    /// Removes it, when no other process is in it any more.
    package func remove() {
        for home in homes where Self.move(to: home) { break }
        for _ in 0..<50 {
            // SAFETY: a NUL-terminated copy for the time of the call.
            if unsafe rmdir(path) == 0 || errno != EBUSY { return }
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
