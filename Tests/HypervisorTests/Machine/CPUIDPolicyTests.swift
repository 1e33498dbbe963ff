import CLinux
import Testing

@testable import Hypervisor

private func entry(
    _ function: UInt32, _ index: UInt32 = 0, eax: UInt32 = 0, ebx: UInt32 = 0, ecx: UInt32 = 0,
    edx: UInt32 = 0
) -> kvm_cpuid_entry2 {
    var entry = kvm_cpuid_entry2()
    (entry.function, entry.index) = (function, index)
    (entry.eax, entry.ebx, entry.ecx, entry.edx) = (eax, ebx, ecx, edx)
    return entry
}

/// Four letters as CPUID packs them.
private func letters(_ text: String) -> UInt32 { text.utf8.reversed().reduce(0) { $0 << 8 | UInt32($1) } }

private let intel: [kvm_cpuid_entry2] = [
    entry(0, eax: 0x1F, ebx: letters("Genu"), ecx: letters("ntel"), edx: letters("ineI")),
    entry(1, eax: 0x806F8, ebx: 0x5508_0800, ecx: 0x7EFA_3203, edx: 0x0F8B_FBFF),
    entry(4, 0, eax: 0xFC00_4121, ebx: 0x02C0_003F, ecx: 63),
    entry(4, 1, eax: 0xFC00_4122, ebx: 0x01C0_003F, ecx: 63),
    entry(4, 2, eax: 0xFC00_C143, ebx: 0x03C0_003F, ecx: 2047),
    entry(4, 3, eax: 0xFC1F_C163, ebx: 0x0380_003F, ecx: 0x1FFFF),
    entry(4, 4),
    entry(7, 0, eax: 2, ebx: 0xF1BF_07AB, ecx: 0x1B41_5F6E, edx: 0xFFD9_4412),
    entry(7, 1, eax: 0x1C30, ebx: 1 << 9, edx: 1 << 4),
    entry(0xA, eax: 0x0730_0805, ecx: 0xF, edx: 0x8603),
    entry(0xB, 0, eax: 1, ebx: 2, ecx: 0x100, edx: 0x55),
    entry(0xB, 1, eax: 7, ebx: 128, ecx: 0x201, edx: 0x55),
    entry(0x1F, 0, eax: 1, ebx: 2, ecx: 0x100, edx: 0x55),
    entry(0x8000_0008, eax: 0x3934, ebx: 0x200),
]

private let amd: [kvm_cpuid_entry2] = [
    entry(0, eax: 0x10, ebx: letters("Auth"), ecx: letters("cAMD"), edx: letters("enti")),
    entry(1, eax: 0xA0_0F11, ebx: 0x3740_0800, ecx: 0x7EF8_320B, edx: 0x178B_FBFF),
    entry(7, 0, ebx: 0x219C_97A9, edx: 1 << 4),
    entry(0xB, 0, eax: 1, ebx: 2, ecx: 0x100, edx: 0x37),
    entry(0x8000_0008, eax: 0x3030, ebx: 0x1000, ecx: 0x0002_703F, edx: 0x10007),
    entry(0x8000_001D, 0, eax: 0x4121, ebx: 0x01C0_003F, ecx: 63),
    entry(0x8000_001D, 2, eax: 0x4143, ebx: 0x01C0_003F, ecx: 1023),
    entry(0x8000_001D, 3, eax: 0x3C163, ebx: 0x03C0_003F, ecx: 0x7FFF),
    entry(0x8000_001D, 4),
    entry(0x8000_001E, eax: 0x37, ebx: 0x11B, ecx: 0x203),
]

@Suite struct CPUIDPolicyTests {
    /// Number of vCPUs, bits of an APIC id.
    static let sizes = [(1, UInt32(0)), (2, 1), (3, 2), (4, 2), (32, 5)]

    private func find(_ table: [kvm_cpuid_entry2], _ function: UInt32, _ index: UInt32 = 0) throws
        -> kvm_cpuid_entry2
    {
        let found = table.filter { $0.function == function && $0.index == index }
        #expect(found.count == 1, "leaf \(function).\(index)")
        return try #require(found.first)
    }

    private func check(
        common table: [kvm_cpuid_entry2], index: Int, count: Int, bits: UInt32, from: [kvm_cpuid_entry2]
    ) throws {
        let features = try find(table, 1)
        let original = try find(from, 1)
        #expect(features.eax == original.eax)
        #expect(features.ebx == original.ebx & 0xFFFF | UInt32(count) << 16 | UInt32(index) << 24)
        #expect(features.ecx == original.ecx | 1 << 31 | 1 << 24)
        #expect(features.edx | 1 << 28 == original.edx | 1 << 28)
        #expect(features.edx >> 28 & 1 == (count > 1 ? 1 : 0), "HTT")
        // Leaf 0xB: one thread a core, all cores in one package.
        let threads = try find(table, 0xB, 0)
        #expect([threads.eax, threads.ebx, threads.ecx, threads.edx] == [0, 1, 0x100, UInt32(index)])
        let cores = try find(table, 0xB, 1)
        #expect([cores.eax, cores.ebx, cores.ecx, cores.edx] == [bits, UInt32(count), 0x201, UInt32(index)])
        let end = try find(table, 0xB, 2)
        #expect([end.eax, end.ebx, end.ecx, end.edx] == [0, 0, 2, UInt32(index)])
        for level in [threads, cores, end] { #expect(level.flags == 1, "the index counts") }
        // Every vCPU's id fits the bits of the package, and its own number is its id.
        #expect(index < 1 << Int(bits))
    }

    @Test(arguments: sizes) func intelTopology(count: Int, bits: UInt32) throws {
        for index in [0, count - 1] {
            let table = CPUIDPolicy.entries(
                intel, index: index, processorCount: count, hasDeadlineTimer: true)
            try check(common: table, index: index, count: count, bits: bits, from: intel)
            for level in UInt32(0)..<3 {
                let newer = try find(table, 0x1F, level)
                let older = try find(table, 0xB, level)
                #expect(
                    [newer.eax, newer.ebx, newer.ecx, newer.edx] == [
                        older.eax, older.ebx, older.ecx, older.edx,
                    ])
            }
            let cores = UInt32(count - 1) << 26
            #expect(try find(table, 4, 0).eax == 0x0000_0121 | cores, "L1 of one core")
            #expect(try find(table, 4, 2).eax == 0x0000_0143 | cores, "L2 of one core")
            #expect(try find(table, 4, 3).eax == 0x0000_0163 | cores | UInt32(count - 1) << 14, "L3 of all")
            #expect(try find(table, 4, 3).ecx == 0x1FFFF)
            #expect(try find(table, 4, 4).eax == 0, "the end of the list")
            let counters = try find(table, 0xA)
            #expect([counters.eax, counters.ebx, counters.ecx, counters.edx] == [0, 0, 0, 0])
            #expect(try find(table, 0x8000_0008).ecx == 0, "reserved on Intel")
            #expect(try find(table, 7).ebx == 0xF1BF_07AB)
        }
    }

    @Test(arguments: sizes) func amdTopology(count: Int, bits: UInt32) throws {
        for index in [0, count - 1] {
            let table = CPUIDPolicy.entries(amd, index: index, processorCount: count, hasDeadlineTimer: true)
            try check(common: table, index: index, count: count, bits: bits, from: amd)
            #expect(!table.contains { $0.function == 0x1F }, "beyond the highest leaf")
            let sizes = try find(table, 0x8000_0008)
            #expect(sizes.ecx == 0x0002_0000 | UInt32(count - 1) | bits << 12)
            #expect(sizes.eax == 0x3030 && sizes.ebx == 0x1000 && sizes.edx == 0x10007)
            #expect(try find(table, 0x8000_001D, 0).eax == 0x121)
            #expect(try find(table, 0x8000_001D, 2).eax == 0x143)
            #expect(try find(table, 0x8000_001D, 3).eax == 0x163 | UInt32(count - 1) << 14)
            #expect(try find(table, 0x8000_001D, 4).eax == 0)
            let node = try find(table, 0x8000_001E)
            #expect([node.eax, node.ebx, node.ecx] == [UInt32(index), UInt32(index), 0])
        }
    }

    @Test func smallTablesStayWithinTheirHighestLeaf() {
        let old = [entry(0, eax: 4, ebx: letters("Genu")), entry(1, ecx: 0)]
        let table = CPUIDPolicy.entries(old, index: 0, processorCount: 2, hasDeadlineTimer: false)
        #expect(table.map { $0.function } == [0, 1])
        #expect(table[1].ecx == 1 << 31, "no deadline timer")
        #expect(CPUIDPolicy.entries([], index: 0, processorCount: 1, hasDeadlineTimer: true).isEmpty)
    }

    @Test func fastStringsAreNotRecommendedUnderAnEmulator() throws {
        let emulated = intel + [entry(0x8000_0002, eax: letters("QEMU"))]
        let table = CPUIDPolicy.entries(emulated, index: 0, processorCount: 1, hasDeadlineTimer: true)
        #expect(try find(table, 7).ebx == 0xF1BF_07AB & ~(1 << 9))
        #expect(try find(table, 7).edx == 0xFFD9_4412 & ~(1 << 4))
        #expect(try find(table, 7, 1).ebx == 1 << 9, "other subleaves are other bits")
    }
}
