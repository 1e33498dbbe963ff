import Foundation
import GuestMemory
import LinuxHost
import TestSupport

/// A control group with a limit of memory and without swap; removed with its object. Where the host counts memory in
/// hierarchies of version 1, a group of version 2 beside it has the account of waiting.
final class LimitedGroup {
    /// Why there can be none here; nil when there can.
    static let problem: String? = {
        do {
            _ = try LimitedGroup(bytes: 64 << 20)
            return nil
        } catch { return "\(error)" }
    }()

    private let folder: String
    private let isFirst: Bool
    private let others: [String]
    /// What a process writes its number into, to join.
    var joining: [String] { ([folder] + others).map { $0 + "/cgroup.procs" } }

    init(bytes: Int) throws {
        let membership = ControlGroupMembership()
        let root = "/sys/fs/cgroup"
        let manager = FileManager.default
        let name = "/mingle-test-\(getpid())"
        func text(_ path: String) -> String {
            manager.contents(atPath: path).map { String(decoding: $0, as: UTF8.self) } ?? ""
        }
        guard geteuid() == 0 else { throw Failure("only root makes control groups") }
        isFirst = membership.memory != nil
        if let group = membership.memory {
            let parent =
                root + "/memory" + (manager.fileExists(atPath: root + "/memory" + group) ? group : "")
            folder = parent + name
            others = manager.fileExists(atPath: root + "/unified") ? [root + "/unified" + name] : []
        } else {
            var group = membership.unified ?? ""
            while !text(root + group + "/cgroup.subtree_control").contains("memory") {
                guard let slash = group.lastIndex(of: "/") else {
                    throw Failure("no control group whose children have memory counted")
                }
                group = String(group[..<slash])
            }
            folder = root + group + name
            others = []
        }
        for path in [folder] + others where mkdir(path, 0o755) != 0 && errno != EEXIST {
            throw Failure("\(path) cannot be made: \(LinuxError.message(errno))")
        }
        let limits =
            isFirst
            ? ["memory.limit_in_bytes", "memory.memsw.limit_in_bytes"] : ["memory.max", "memory.swap.max"]
        try write(limits[0], bytes)
        // Without an account of swap there is none to limit.
        if manager.fileExists(atPath: folder + "/" + limits[1]) { try write(limits[1], isFirst ? bytes : 0) }
    }

    deinit { for path in [folder] + others { _ = eventually(within: 10) { rmdir(path) == 0 } } }

    private func write(_ file: String, _ number: Int) throws {
        let descriptor = open(folder + "/" + file, O_WRONLY)
        defer { close(descriptor) }
        let bytes = Array("\(number)\n".utf8)
        guard descriptor >= 0, Glibc.write(descriptor, bytes, bytes.count) == bytes.count else {
            throw Failure("\(folder)/\(file) cannot be written: \(LinuxError.message(errno))")
        }
    }

    /// Processes that the kernel has killed for want of memory.
    var kills: Int? {
        let file = isFirst ? "/memory.oom_control" : "/memory.events"
        let text = FileManager.default.contents(atPath: folder + file).map {
            String(decoding: $0, as: UTF8.self)
        }
        let line = text?.split(separator: "\n").first { $0.hasPrefix("oom_kill ") }
        return line?.split(separator: " ").last.flatMap { Int($0) }
    }

    /// What the group could still take, seen from within.
    func availableBytes() throws -> Int {
        let file = isFirst ? "/memory.usage_in_bytes" : "/memory.current"
        let limit = isFirst ? "/memory.limit_in_bytes" : "/memory.max"
        let stat = isFirst ? ["total_active_file", "total_inactive_file"] : ["active_file", "inactive_file"]
        func text(_ name: String) -> String {
            FileManager.default.contents(atPath: folder + name).map { String(decoding: $0, as: UTF8.self) }
                ?? ""
        }
        func number(_ name: String) throws -> Int {
            guard let number = Int(text(name).prefix { $0.isNumber }) else { throw Failure("no \(name)") }
            return number
        }
        let found = SmallFile.table(text("/memory.stat"))
        let files = stat.reduce(0) { $0 + Int(found[$1[...]] ?? 0) }
        return try number(limit) - number(file) + files
    }
}
