/// Where a process stands in the hierarchies of control groups (cgroups(7)).
public struct ControlGroupMembership: Equatable, Sendable {
    /// In the hierarchy of version 1 that counts memory, if there is one.
    public private(set) var memory: String?
    /// In the hierarchy of version 2.
    public private(set) var unified: String?

    /// Reads the text of `/proc/PID/cgroup`.
    public init(text: String) {
        for place in Self.places(text) {
            if place.controllers.isEmpty {
                unified = place.group
            } else if place.controllers.contains("memory") {
                memory = place.group
            }
        }
    }

    /// Where a process stands in each hierarchy, by `/proc/PID/cgroup`: `number:controllers:group`. Version 2
    /// names no controllers.
    static func places(_ text: String) -> [(controllers: Set<String>, group: String)] {
        text.split(separator: "\n").compactMap { line in
            let fields = line.split(separator: ":", maxSplits: 2, omittingEmptySubsequences: false)
            guard fields.count == 3 else { return nil }
            return (Set(fields[1].split(separator: ",").map(String.init)), String(fields[2]))
        }
    }

    /// Asks about a process.
    /// - Parameter process: its number, or `self`.
    public init(process: String = "self", root: String = "") {
        self.init(text: SystemCall.text(of: "\(root)/proc/\(process)/cgroup") ?? "")
    }

    /// The group that memory is charged to.
    public var charged: String { memory ?? unified ?? "/" }

    /// Whether memory of such a process is charged to `group`, or to one below it.
    public func isWithin(_ group: String) -> Bool {
        group == "/" || charged == group || charged.hasPrefix(group + "/")
    }

    /// The group and those above it, the root last.
    public static func upwards(_ group: String) -> [String] {
        var groups: [String] = []
        var group = group
        while group != "/", !group.isEmpty {
            groups.append(group)
            group = group.lastIndex(of: "/").map { String(group[..<$0]) } ?? ""
        }
        return groups + ["/"]
    }

    /// The folder of the hierarchy of version 2.
    static func unifiedFolder(root: String) -> String {
        let folder = root + "/sys/fs/cgroup"
        return SystemCall.text(of: folder + "/cgroup.controllers") == nil ? folder + "/unified" : folder
    }

    /// The folders of ``charged`` and the groups above it, with the names of the groups.
    func chargedFolders(root: String) -> [(group: String, folder: String)] {
        let base = memory == nil ? Self.unifiedFolder(root: root) : root + "/sys/fs/cgroup/memory"
        return Self.upwards(charged).map { ($0, base + ($0 == "/" ? "" : $0)) }
    }
}
