import Confinement
import Glibc
import TestSupport
import Testing
import VMMProtocol

@testable import MingleSupport

@Suite struct HostChecksTests {
    let temporary: TemporaryDirectory
    var host: HostChecks { HostChecks(root: temporary.path, container: nil) }

    init() throws { temporary = try TemporaryDirectory() }

    @Test(arguments: [
        ("6.1.0-30-cloud-amd64\n", HostCheck.Status.ok), ("6.18.44", .ok), ("7.0-rc1", .ok),
        ("5.15.0", .warning),
        ("6.0.9", .warning), ("nonsense", .warning),
    ])
    func kernels(_ release: String, _ status: HostCheck.Status) throws {
        try temporary.write("proc/sys/kernel/osrelease", release)
        let check = host.kernel()
        #expect(check.status == status && (check.remedy == nil) == (status == .ok))
    }

    @Test func mapCounts() throws {
        #expect(host.mapCount().status == .warning)
        try temporary.write("proc/sys/vm/max_map_count", "65530\n")
        #expect(host.mapCount().status == .ok)
        try temporary.write("proc/sys/vm/max_map_count", "65529\n")
        #expect(host.mapCount().remedy == "sudo sysctl vm.max_map_count=65530")
    }

    @Test func hugePagesAndMerging() throws {
        #expect(host.hugePages().summary.contains("none"))
        #expect(host.samePageMerging().summary.contains("no KSM"))
        try temporary.write("sys/kernel/mm/transparent_hugepage/enabled", "always [madvise] never\n")
        try temporary.write(
            "sys/kernel/mm/transparent_hugepage/shmem_enabled", "always [advise] never deny force\n")
        try temporary.write("sys/kernel/mm/ksm/run", "1\n")
        #expect(host.hugePages().values.map(\.value) == [.string("madvise"), .string("advise")])
        #expect(host.samePageMerging().summary.hasPrefix("KSM is on"))
    }

    private func writeMemory() throws {
        try temporary.write(
            "proc/meminfo",
            "MemTotal:       8388608 kB\nMemFree: 1 kB\nMemAvailable:   4194304 kB\nSwapTotal: 2048 kB\nSwapFree: 1024 kB\n"
        )
    }

    @Test func memory() throws {
        #expect(host.memory().status == .warning)
        try writeMemory()
        try temporary.write("proc/sys/vm/overcommit_memory", "0\n")
        #expect(host.memory().status == .ok)
        #expect(host.memory().summary == "4G of 8G available, 1M of swap free")
        try temporary.write("proc/sys/vm/overcommit_memory", "2\n")
        #expect(host.memory().remedy == "sudo sysctl vm.overcommit_memory=0")
    }

    @Test func controlGroupLimits() throws {
        try writeMemory()
        try temporary.write("proc/self/cgroup", "0::/a/b\n")
        try temporary.write("sys/fs/cgroup/cgroup.controllers", "memory\n")
        for group in ["a", "a/b"] { try temporary.write("sys/fs/cgroup/\(group)/memory.current", "1\n") }
        try temporary.write("sys/fs/cgroup/a/b/memory.max", "max\n")
        #expect(HostMemory(root: temporary.path)?.groupLimitBytes == nil)
        try temporary.write("sys/fs/cgroup/a/memory.max", "1073741824\n")
        #expect(HostMemory(root: temporary.path)?.groupLimitBytes == 1 << 30)
        try temporary.write("sys/fs/cgroup/a/b/memory.max", "4096\n")
        #expect(HostMemory(root: temporary.path)?.groupLimitBytes == 4096)
        // cgroup v1; a limit above what the host has is none.
        try temporary.write("proc/self/cgroup", "4:memory:/x\n")
        try temporary.write("sys/fs/cgroup/memory/memory.usage_in_bytes", "1\n")
        try temporary.write("sys/fs/cgroup/memory/x/memory.usage_in_bytes", "1\n")
        try temporary.write("sys/fs/cgroup/memory/x/memory.limit_in_bytes", "9223372036854771712\n")
        #expect(HostMemory(root: temporary.path)?.groupLimitBytes == nil)
        try temporary.write("sys/fs/cgroup/memory/memory.limit_in_bytes", "65536\n")
        #expect(HostMemory(root: temporary.path)?.groupLimitBytes == 65536)
    }

    @Test func processors() throws {
        #expect(ProcessorFacts(root: temporary.path).virtualizationModule == nil)
        try temporary.write("proc/cpuinfo", "processor : 0\nflags\t\t: fpu vme svm sse\n")
        #expect(ProcessorFacts(root: temporary.path).virtualizationModule == "kvm_amd")
        try temporary.write("proc/cpuinfo", "flags\t\t: fpu vmx sse\n")
        #expect(ProcessorFacts(root: temporary.path).virtualizationModule == "kvm_intel")
    }

    @Test func containers() throws {
        #expect(ContainerKind.detect(root: temporary.path) == nil)
        #expect(ContainerKind.detect(root: temporary.path, environment: "podman") == .podman)
        try temporary.write("proc/1/cgroup", "0::/kubepods/x\n")
        #expect(ContainerKind.detect(root: temporary.path) == .other)
        try temporary.write(".dockerenv", "")
        #expect(ContainerKind.detect(root: temporary.path) == .docker)
        try temporary.write("run/.containerenv", "")
        #expect(ContainerKind.detect(root: temporary.path) == .podman)
        for (text, kind) in [
            ("lxc-libvirt\n", ContainerKind.lxc), ("systemd-nspawn\n", .systemdNspawn), ("wsl", .other),
        ] {
            try temporary.write("run/systemd/container", text)
            #expect(ContainerKind.detect(root: temporary.path) == kind)
        }
    }
}

@Suite struct DoctorReportTests {
    private func check(_ status: HostCheck.Status) -> HostCheck {
        HostCheck("x", status, "s", remedy: "do\nthis")
    }

    @Test func verdicts() {
        #expect(DoctorReport(checks: [check(.ok), check(.warning)], kernelMode: .hardware).verdict == .linux)
        #expect(DoctorReport(checks: [check(.ok)], kernelMode: .emulated).verdict == .payloads)
        #expect(DoctorReport(checks: [check(.ok)], kernelMode: .unknown(reason: "")).verdict == .payloads)
        #expect(DoctorReport(checks: [check(.problem)], kernelMode: .hardware).verdict == .nothing)
        #expect([.linux, .nothing, .payloads].map(\DoctorReport.Verdict.exitCode) == [0, 1, 2])
    }

    @Test func textShowsRemediesBelow() {
        let text = DoctorReport(checks: [check(.warning)], kernelMode: .hardware).text
        #expect(
            text == """
                warning  x  s
                            -> do
                            -> this

                This host runs Linux guests and payloads natively.
                """)
    }

    @Test func jsonKeysAreStable() {
        let report = DoctorReport(checks: [HostCheck("a", .ok, "fine")], kernelMode: .emulated)
        #expect(
            report.json(version: "9.9").text() == """
                {
                  "version": "9.9",
                  "verdict": "payloads",
                  "exit_code": 2,
                  "checks": [
                    {
                      "id": "a",
                      "status": "ok",
                      "summary": "fine",
                      "remedy": null,
                      "values": {}
                    }
                  ]
                }
                """)
    }

    @Test func idsAreUniqueAndInOrder() {
        let report = Doctor().report(
            kernelMode: { .hardware }, state: StateDirectory(path: "/proc/none"),
            program: .failure(.requirement(problem: "p", advice: "a")))
        let ids = report.checks.map(\.id)
        #expect(Set(ids).count == ids.count)
        #expect(ids.prefix(4) == ["host.kernel", "host.processor", "host.container", "kvm.device"])
        // Neither a state directory nor a VMM: nothing can run, whatever KVM can do.
        #expect(report.verdict == .nothing)
        #expect(report.checks.suffix(2).map(\.status) == [.problem, .problem])
    }
}

@Suite struct DeviceAdviceTests {
    private let facts: ProcessorFacts

    init() throws {
        let temporary = try TemporaryDirectory()
        try temporary.write("proc/cpuinfo", "flags : vmx\n")
        facts = ProcessorFacts(root: temporary.path)
    }

    private func advice(_ code: Int32, _ container: ContainerKind? = nil) -> String {
        KVMDevice.advice(code: code, container: container, processor: facts)
    }

    @Test func saysWhatToDo() {
        #expect(advice(ENOENT) == "sudo modprobe kvm_intel")
        #expect(advice(EACCES).hasPrefix("sudo usermod -aG kvm"))
        #expect(advice(ENOENT, .docker).contains("docker run --device /dev/kvm"))
        #expect(advice(EACCES, .docker).contains("container"))
        #expect(advice(EBUSY).contains("another hypervisor"))
        let none = KVMDevice.advice(
            code: ENOENT, container: nil, processor: ProcessorFacts(root: "/nonexistent"))
        #expect(none.contains("firmware"))
    }

    @Test func confinement() {
        func check(_ filters: Bool, _ landlock: Int) -> HostCheck {
            ConfinementCheck.check(ConfinementAbility(filters: filters, landlock: landlock))
        }
        #expect(check(true, 7).status == .ok && check(true, 7).summary.contains("version 7"))
        #expect(check(true, 0).status == .warning && check(true, 0).remedy != nil)
        #expect(check(false, 7).status == .problem && check(false, 0).summary.contains("--confine off"))
    }

    @Test func userfaultfd() {
        func check(_ call: Int32, _ device: Int32) -> HostCheck {
            UserfaultCheck.check(.init(systemCall: call, device: device, unprivileged: 0))
        }
        #expect(check(EPERM, 0).status == .ok)
        #expect(check(0, ENOENT).status == .ok)
        #expect(
            check(EPERM, EACCES).remedy?.contains(#"KERNEL=="userfaultfd", GROUP="kvm", MODE="0660""#) == true
        )
        #expect(
            check(EPERM, EACCES).remedy?.contains("/etc/udev/rules.d/65-mingle-userfaultfd.rules") == true)
        #expect(check(EPERM, ENOENT).remedy == "sudo sysctl vm.unprivileged_userfaultfd=1")
        // Who may have one, of a kernel that cannot protect shared memory, falls back to pauses as well.
        for outcome in [check(EINVAL, ENOENT), check(EPERM, EINVAL)] {
            #expect(outcome.status == .warning && outcome.remedy?.contains("5.19") == true)
        }
    }
}
