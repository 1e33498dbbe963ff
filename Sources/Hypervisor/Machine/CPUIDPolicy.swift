internal import CLinux

/// What CPUID says in a guest: what KVM supports, with this guest's topology.
enum CPUIDPolicy {
    private enum Leaf {
        static let features: UInt32 = 0x1
        static let cache: UInt32 = 0x4
        static let extendedFeatures: UInt32 = 0x7
        static let performance: UInt32 = 0xA
        static let topology: UInt32 = 0xB
        static let topologyV2: UInt32 = 0x1F
        static let amdCores: UInt32 = 0x8000_0008
        static let amdCache: UInt32 = 0x8000_001D
        static let amdTopology: UInt32 = 0x8000_001E
    }

    /// - Parameters:
    ///   - supported: KVM_GET_SUPPORTED_CPUID.
    ///   - hasDeadlineTimer: KVM_CAP_TSC_DEADLINE_TIMER, which that table does not show.
    static func entries(
        _ supported: [kvm_cpuid_entry2], index: Int, processorCount: Int, hasDeadlineTimer: Bool
    ) -> [kvm_cpuid_entry2] {
        // One socket, one thread a core. APIC ids are vCPU indices.
        let idBits = UInt32(max(0, Int.bitWidth - (processorCount - 1).leadingZeroBitCount))
        let isAMD = vendorIsAMD(supported)
        var kept: [kvm_cpuid_entry2] = []
        for var entry in supported {
            switch entry.function {
            case Leaf.features:
                entry.ebx = entry.ebx & 0x0000_FFFF | UInt32(processorCount) << 16 | UInt32(index) << 24
                entry.ecx |= 1 << 31  // a hypervisor is present
                if hasDeadlineTimer { entry.ecx |= 1 << 24 }
                entry.edx = processorCount > 1 ? entry.edx | 1 << 28 : entry.edx & ~(1 << 28)
            case Leaf.cache, Leaf.amdCache: setSharing(&entry, processorCount)
            case Leaf.extendedFeatures where entry.index == 0: dropSlowStringHints(&entry, supported)
            case Leaf.performance:
                // No performance counters: a guest that half sees them warns at boot.
                (entry.eax, entry.ebx, entry.ecx, entry.edx) = (0, 0, 0, 0)
            case Leaf.topology, Leaf.topologyV2: continue
            case Leaf.amdCores where isAMD:
                entry.ecx = entry.ecx & ~0xF0FF | UInt32(processorCount - 1) | idBits << 12
            case Leaf.amdTopology:
                entry.eax = UInt32(index)
                entry.ebx = UInt32(index)
                entry.ecx = 0
            default: break
            }
            kept.append(entry)
        }
        let maximum = supported.first { $0.function == 0 }?.eax ?? 0
        if maximum >= Leaf.topology { kept += topology(Leaf.topology, index, processorCount, idBits) }
        if maximum >= Leaf.topologyV2 { kept += topology(Leaf.topologyV2, index, processorCount, idBits) }
        return kept
    }

    /// "AuthenticAMD" and "HygonGenuine", by their first letters.
    private static func vendorIsAMD(_ supported: [kvm_cpuid_entry2]) -> Bool {
        supported.contains { $0.function == 0 && ($0.ebx == 0x6874_7541 || $0.ebx == 0x6F67_7948) }
    }

    /// Leaf 4 (Intel) and 0x8000001D (AMD): first and second level caches belong to a core, the third to all.
    private static func setSharing(_ entry: inout kvm_cpuid_entry2, _ processorCount: Int) {
        // Type 0 ends the list.
        guard entry.eax & 0x1F != 0 else { return }
        let level = entry.eax >> 5 & 7
        let sharing = level >= 3 ? UInt32(processorCount - 1) : 0
        entry.eax = entry.eax & ~0x03FF_C000 | sharing << 14
        if entry.function == Leaf.cache {
            entry.eax = entry.eax & ~0xFC00_0000 | UInt32(processorCount - 1) << 26
        }
    }

    /// Under a software emulator, "fast" string instructions take a step a byte: do not recommend them there.
    private static func dropSlowStringHints(_ entry: inout kvm_cpuid_entry2, _ supported: [kvm_cpuid_entry2])
    {
        guard let leaf = supported.first(where: { $0.function == 0x8000_0002 }), leaf.eax == 0x554D_4551
        else { return }
        entry.ebx &= ~(1 << 9)  // ERMS
        entry.edx &= ~(1 << 4)  // FSRM
    }

    /// Extended topology (Intel SDM vol. 2, CPUID): a level of threads (one a core), a level of cores.
    private static func topology(
        _ leaf: UInt32, _ index: Int, _ processorCount: Int, _ idBits: UInt32
    ) -> [kvm_cpuid_entry2] {
        func level(_ number: UInt32, shift: UInt32, count: UInt32, kind: UInt32) -> kvm_cpuid_entry2 {
            var entry = kvm_cpuid_entry2()
            entry.function = leaf
            entry.index = number
            entry.flags = UInt32(KVM_CPUID_FLAG_SIGNIFCANT_INDEX)
            entry.eax = shift
            entry.ebx = count
            entry.ecx = kind << 8 | number
            entry.edx = UInt32(index)
            return entry
        }
        return [
            level(0, shift: 0, count: 1, kind: 1),
            level(1, shift: idBits, count: UInt32(processorCount), kind: 2),
            level(2, shift: 0, count: 0, kind: 0),
        ]
    }
}
