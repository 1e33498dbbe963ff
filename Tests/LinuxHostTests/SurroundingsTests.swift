import Foundation
import Testing
import TestSupport

@testable import LinuxHost

/// A host made of files.
private struct FakeHost {
    let folder: TemporaryDirectory
    var root: String { folder.path }

    init(_ files: [String: String]) throws {
        folder = try TemporaryDirectory()
        for (name, text) in files {
            let file = folder.path + "/" + name
            try FileManager.default.createDirectory(
                atPath: (file as NSString).deletingLastPathComponent, withIntermediateDirectories: true)
            try Data(text.utf8).write(to: URL(fileURLWithPath: file))
        }
    }
}

@Suite("Where control groups are mounted") struct ControlGroupHierarchyTests {
    private static let versionOne = """
        31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755
        35 31 0:32 / /sys/fs/cgroup/memory rw,relatime shared:7 - cgroup cgroup rw,memory
        33 31 0:30 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct
        41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw

        """

    @Test("a folder between hierarchies is none of a control group")
    func versionOne() throws {
        let host = try FakeHost([
            "proc/self/mountinfo": Self.versionOne,
            "proc/self/cgroup": "4:memory:/a/b\n3:cpu,cpuacct:/\n0::/\n",
        ])
        let all = ControlGroupHierarchy.all(root: host.root)
        #expect(all.count == 3)
        let memory = try #require(ControlGroupHierarchy.ofMemory(root: host.root))
        #expect(memory.version == .one && memory.group() == "/a/b")
        let folders = memory.upwards("/a/b").map(\.folder)
        #expect(folders == ["/a/b", "/a", ""].map { "\(host.root)/sys/fs/cgroup/memory\($0)" })
        // Without a mount that counts memory, that of version 2 is left.
        let bare = try FakeHost([
            "proc/self/mountinfo": "31 23 0:28 / /sys/fs/cgroup rw - tmpfs tmpfs rw\n",
            "proc/self/cgroup": "0::/\n",
        ])
        #expect(ControlGroupHierarchy.ofMemory(root: bare.root) == nil)
    }

    @Test("in a container, its own group is mounted, by whatever name it goes")
    func container() throws {
        let line = "35 31 0:32 /docker/1 /mnt/c\\040g rw - cgroup cgroup rw,memory"
        let hierarchy = try #require(ControlGroupHierarchy(line: line[...]))
        #expect(hierarchy.folder(of: "/docker/1") == "/mnt/c g")
        #expect(hierarchy.folder(of: "/docker/1/x") == "/mnt/c g/x")
        #expect(hierarchy.folder(of: "/docker/12") == nil)
        #expect(hierarchy.folder(of: "/") == nil)
        let space = try #require(ControlGroupHierarchy(line: "1 2 0:3 / /cg rw - cgroup2 none rw"))
        #expect(space.folder(of: "/../other") == nil && space.folder(of: "/x") == "/cg/x")
        for text in ["", "1 2 0:3 / /cg rw", "1 2 0:3 / /cg rw - tmpfs none rw", "1 2 0:3 / /cg rw - cgroup"]
        {
            #expect(ControlGroupHierarchy(line: text[...]) == nil)
        }
    }

    @Test("groups of version 2 count memory where it was delegated, and say what they limit")
    func versionTwo() throws {
        let host = try FakeHost([
            "proc/self/mountinfo": "41 31 0:38 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n",
            "proc/self/cgroup": "0::/u/s\n",
            "sys/fs/cgroup/cgroup.subtree_control": "cpu memory pids\n",
            "sys/fs/cgroup/u/cgroup.subtree_control": "\n",
            "sys/fs/cgroup/u/memory.max": "max\n",
            "sys/fs/cgroup/u/pids.max": "9000\n",
            "sys/fs/cgroup/u/s/memory.max": "62914560\n",
            "sys/fs/cgroup/u/s/pids.max": "8\n",
            "sys/fs/cgroup/u/s/cpu.max": "50000 100000\n",
            "sys/fs/cgroup/u/s/cpu.weight": "20\n",
        ])
        let hierarchy = try #require(ControlGroupHierarchy.ofMemory(root: host.root))
        let chain = hierarchy.upwards("/u/s")
        #expect(chain.map { hierarchy.countsMemory(below: $0.folder) } == [false, false, true])
        let size = HostSize(memoryBytes: 1 << 30, processorCount: 2)
        #expect(hierarchy.limits(of: "/u", size) == [])
        #expect(
            hierarchy.limits(of: "/u/s", size).map(\.description) == [
                "60M of memory (memory.max of control group /u/s)",
                "8 processes and threads (pids.max of control group /u/s)",
                "50% of one processor (cpu.max of control group /u/s)",
                "20% of the usual share of processors (cpu.weight of control group /u/s)",
            ])
    }
}

@Suite("What a process was given") struct ProcessConstraintTests {
    private static let free: [String: String] = [
        "proc/meminfo": "MemTotal: 8388608 kB\n", "sys/devices/system/cpu/online": "0-3\n",
        "proc/7/limits": """
        Limit                     Soft Limit           Hard Limit           Units
        Max cpu time              unlimited            unlimited            seconds
        Max file size             unlimited            unlimited            bytes
        Max open files            1024                 524288               files

        """,
        "proc/7/stat":
            "7 (a) b) S 1 7 7 0 -1 4194304 0 0 0 0 0 0 0 0 20 0 1 0 5 0 0 1 0 0 0 0 0 0 0 0 0 0 0 0 17 0 0 0 0",
        "proc/7/status": "Name:\tx\nCpus_allowed_list:\t0-3\n", "proc/7/oom_score_adj": "0\n",
    ]

    private func constraints(_ changes: [String: String] = [:]) throws -> [ProcessConstraint] {
        let host = try FakeHost(Self.free.merging(changes) { $1 })
        return ProcessConstraint.all(of: "7", root: host.root)
    }

    @Test("is nothing, usually, and nothing of a process that is gone")
    func none() throws {
        #expect(try constraints() == [])
        #expect(ProcessConstraint.all(of: "8", root: try FakeHost(Self.free).root) == [])
    }

    @Test("limits, priority, processors, danger")
    func found() throws {
        let limits = """
            Limit                     Soft Limit           Hard Limit           Units
            Max cpu time              60                   60                   seconds
            Max file size             102400000            102400000            bytes
            Max open files            14                   14                   files

            """
        let stat =
            "7 (x) S 1 7 7 0 -1 4194304 0 0 0 0 0 0 0 0 35 15 1 0 5 0 0 1 0 0 0 0 0 0 0 0 0 0 0 0 17 0 0 5 0"
        let all = try constraints([
            "proc/7/limits": limits, "proc/7/stat": stat, "proc/7/status": "Cpus_allowed_list:\t1,3\n",
            "proc/7/oom_score_adj": "200\n",
        ])
        #expect(
            all.map(\.kind) == [
                .processorSeconds, .fileSize, .openFiles, .priority, .scheduling, .processors, .endangered,
            ])
        #expect(all.map(\.allowance) == [60, 102_400_000, 14, 4, 0, 2, 800])
        #expect(all[1].description == "files of at most 100000K (ulimit -f)")
        #expect(all[5].description == "processors 1,3 of 4 (CPU mask or cpuset)")
        // Whoever is as limited feels nothing of it; who is less limited does.
        #expect(all.allSatisfy { !$0.isTighter(than: all) && $0.isTighter(than: []) })
        var looser = all[3]
        looser.allowance = 10
        #expect(all[3].isTighter(than: [looser]) && !looser.isTighter(than: [all[3]]))
    }

    @Test("limits of its control groups and those above them")
    func groups() throws {
        let all = try constraints([
            "proc/self/mountinfo": "35 31 0:32 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n",
            "proc/7/cgroup": "4:memory:/g/h\n", "sys/fs/cgroup/memory/g/memory.limit_in_bytes": "62914560\n",
            "sys/fs/cgroup/memory/g/h/memory.limit_in_bytes": "9223372036854771712\n",
        ])
        #expect(all.map(\.kind) == [.group(.memory, name: "/g")])
        #expect(all.first?.limitsMemory == true)
        #expect(all.first?.description == "60M of memory (memory.limit_in_bytes of control group /g)")
    }

    @Test("words that are no UTF-8 are shown with their wrong bytes")
    func words() {
        #expect(ProgramStart.readable(Array("über".utf8)) == nil)
        #expect(ProgramStart.readable([0x61, 0xff, 0x0a, 0x62]) == "a\\xff\\x0ab")
    }
}
