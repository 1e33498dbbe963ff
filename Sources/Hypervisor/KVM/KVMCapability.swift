internal import CLinux

/// A KVM extension (Documentation/virt/kvm/api.rst, KVM_CHECK_EXTENSION).
public struct KVMCapability: Hashable, Sendable {
    /// As the kernel's documentation names it.
    public let name: String
    let number: UInt

    private init(_ name: String, _ number: Int32) {
        self.name = name
        self.number = UInt(number)
    }

    public static let userMemory = KVMCapability("KVM_CAP_USER_MEMORY", KVM_CAP_USER_MEMORY)
    public static let irqchip = KVMCapability("KVM_CAP_IRQCHIP", KVM_CAP_IRQCHIP)
    public static let setTSSAddress = KVMCapability("KVM_CAP_SET_TSS_ADDR", KVM_CAP_SET_TSS_ADDR)
    public static let identityMapAddress = KVMCapability(
        "KVM_CAP_SET_IDENTITY_MAP_ADDR", KVM_CAP_SET_IDENTITY_MAP_ADDR)
    public static let extendedCPUID = KVMCapability("KVM_CAP_EXT_CPUID", KVM_CAP_EXT_CPUID)
    public static let processorState = KVMCapability("KVM_CAP_MP_STATE", KVM_CAP_MP_STATE)
    public static let pit2 = KVMCapability("KVM_CAP_PIT2", KVM_CAP_PIT2)
    public static let immediateExit = KVMCapability("KVM_CAP_IMMEDIATE_EXIT", KVM_CAP_IMMEDIATE_EXIT)
    public static let tscDeadlineTimer = KVMCapability(
        "KVM_CAP_TSC_DEADLINE_TIMER", KVM_CAP_TSC_DEADLINE_TIMER)
    public static let adjustClock = KVMCapability("KVM_CAP_ADJUST_CLOCK", KVM_CAP_ADJUST_CLOCK)
    public static let recommendedProcessors = KVMCapability("KVM_CAP_NR_VCPUS", KVM_CAP_NR_VCPUS)
    public static let maximumProcessors = KVMCapability("KVM_CAP_MAX_VCPUS", KVM_CAP_MAX_VCPUS)
    public static let memorySlots = KVMCapability("KVM_CAP_NR_MEMSLOTS", KVM_CAP_NR_MEMSLOTS)
    public static let readOnlyMemory = KVMCapability("KVM_CAP_READONLY_MEM", KVM_CAP_READONLY_MEM)
    public static let manualDirtyLog = KVMCapability(
        "KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2", KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2)
    public static let dirtyRing = KVMCapability("KVM_CAP_DIRTY_LOG_RING", KVM_CAP_DIRTY_LOG_RING)
    public static let exitOnEmulationFailure = KVMCapability(
        "KVM_CAP_EXIT_ON_EMULATION_FAILURE", KVM_CAP_EXIT_ON_EMULATION_FAILURE)
    public static let irqEventDescriptor = KVMCapability("KVM_CAP_IRQFD", KVM_CAP_IRQFD)
    public static let ioEventDescriptor = KVMCapability("KVM_CAP_IOEVENTFD", KVM_CAP_IOEVENTFD)

    /// Without these no guest runs.
    public static let required: [KVMCapability] = [
        .userMemory, .irqchip, .setTSSAddress, .identityMapAddress, .extendedCPUID, .processorState, .pit2,
        .immediateExit,
    ]
    /// All that Mingle asks for, for a report.
    public static let all: [KVMCapability] =
        required + [
            .tscDeadlineTimer, .adjustClock, .recommendedProcessors, .maximumProcessors, .memorySlots,
            .readOnlyMemory, .manualDirtyLog, .dirtyRing, .exitOnEmulationFailure, .irqEventDescriptor,
            .ioEventDescriptor,
        ]
}
