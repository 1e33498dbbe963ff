import Foundation
import TestSupport
import Testing

@testable import Sharing

/// What the edge tests need of the host. A lack is shown as a skip, with its reason; `MINGLE_REQUIRE=edge` makes it a
/// failure: so they run in the nested lab, where all of it is there.
enum EdgeNeed: CaseIterable {
    case userfaultfd, root, memoryGroup, lab

    static let isDemanded = Demands.include("edge")
    /// The machine is the lab's: its settings may be changed.
    static let isLab = ProcessInfo.processInfo.environment["MINGLE_LAB"] == "1"

    var problem: String? {
        switch self {
        case .userfaultfd:
            UserFault.open()?.ability == .protect
                ? nil : "needs userfaultfd with faults of kernel mode: see mingle doctor"
        case .root: geteuid() == 0 ? nil : "needs root: frame numbers are shown to root alone"
        case .memoryGroup:
            MemoryGroup.isPossible ? nil : "needs root and a hierarchy of memory cgroups that it may extend"
        case .lab: Self.isLab ? nil : "changes settings of the machine: only in the lab (scripts/edge-tests)"
        }
    }
}

extension Trait where Self == ConditionTrait {
    static func needs(_ need: EdgeNeed) -> Self {
        .enabled(
            if: need.problem == nil || EdgeNeed.isDemanded,
            Comment(rawValue: need.problem ?? "\(need): there"))
    }
}

@Suite struct DemandedEdgeTests {
    @Test(.enabled(if: EdgeNeed.isDemanded, "MINGLE_REQUIRE does not say edge"), arguments: EdgeNeed.allCases)
    func isThereInTheLab(need: EdgeNeed) { #expect(need.problem == nil) }
}

/// A memory cgroup of this test's own (Linux's Documentation/admin-guide/cgroup-v1/memory.rst and cgroup-v2.rst).
struct MemoryGroup {
    private static let first = "/sys/fs/cgroup/memory"
    private static let second = "/sys/fs/cgroup"
    let path: String
    private let isSecond: Bool

    static var isPossible: Bool {
        guard geteuid() == 0 else { return false }
        if EdgeNeed.isLab { return true }
        return access(first + "/cgroup.procs", W_OK) == 0
            || read(second + "/cgroup.subtree_control").contains("memory")
    }

    /// - Parameter process: names it.
    init(of process: pid_t) throws {
        if access(Self.first + "/cgroup.procs", W_OK) != 0, access(Self.second + "/cgroup.procs", W_OK) != 0 {
            // Nothing mounts it in the lab.
            guard mount("cgroup", Self.second, "cgroup2", 0, nil) == 0 else { throw POSIXError(.ENODEV) }
            try Self.write(Self.second + "/cgroup.subtree_control", "+memory")
        }
        isSecond = access(Self.first + "/cgroup.procs", W_OK) != 0
        path = (isSecond ? Self.second : Self.first) + "/mingle-test-\(process)"
        guard mkdir(path, 0o755) == 0 || errno == EEXIST else { throw POSIXError(.EACCES) }
    }

    /// Moves this process into it.
    func enter() throws { try Self.write(path + "/cgroup.procs", "\(getpid())") }
    func limit(to bytes: Int) throws {
        try Self.write(path + (isSecond ? "/memory.max" : "/memory.limit_in_bytes"), "\(bytes)")
    }
    var usedBytes: Int {
        Int(Self.read(path + (isSecond ? "/memory.current" : "/memory.usage_in_bytes"))) ?? 0
    }
    /// Once its processes have ended.
    func remove() { rmdir(path) }

    static func read(_ path: String) -> String {
        ((try? String(contentsOfFile: path, encoding: .utf8)) ?? "").trimmingCharacters(in: .newlines)
    }
    static func write(_ path: String, _ text: String) throws {
        let file = open(path, O_WRONLY | O_CLOEXEC)
        guard file >= 0 else { throw POSIXError(.ENOENT) }
        defer { close(file) }
        guard Glibc.write(file, text, text.utf8.count) == text.utf8.count else { throw POSIXError(.EIO) }
    }
}
