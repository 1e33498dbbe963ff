internal import CLinux

/// What madvise(2) may be told (asm-generic/mman-common.h). Among the rest is what fails memory that others map, for who may (root).
enum Advice {
    private static let dontNeed: UInt32 = 4
    private static let dontFork: UInt32 = 10
    /// The C library says it of its heap where the user wants that (GLIBC_TUNABLES).
    private static let hugePage: UInt32 = 14
    private static let noHugePage: UInt32 = 15
    private static let dontDump: UInt32 = 16
    private static let populateWrite: UInt32 = 23

    static let all = [dontNeed, dontFork, hugePage, noHugePage, dontDump, populateWrite]
}

/// The requests of ioctl(2) that threads may make, by what they are for.
enum Requests {
    private static func numbers(_ requests: UInt...) -> [UInt32] {
        requests.map { UInt32(truncatingIfNeeded: $0) }
    }

    /// What a vCPU says of itself.
    private static let registers = numbers(
        MINGLE_KVM_GET_REGS, MINGLE_KVM_GET_SREGS, MINGLE_KVM_TRANSLATE, MINGLE_KVM_GET_MSRS,
        MINGLE_KVM_GET_LAPIC, MINGLE_KVM_GET_MP_STATE, MINGLE_KVM_GET_VCPU_EVENTS,
        MINGLE_KVM_GET_TSC_KHZ)
    private static let setting = numbers(
        MINGLE_KVM_SET_REGS, MINGLE_KVM_SET_SREGS, MINGLE_KVM_SET_FPU, MINGLE_KVM_SET_MSRS,
        MINGLE_KVM_SET_LAPIC, MINGLE_KVM_SET_MP_STATE)

    static let processor =
        numbers(MINGLE_KVM_RUN, MINGLE_KVM_IRQ_LINE, MINGLE_KVM_KVMCLOCK_CTRL) + registers
    static let loading = numbers(MINGLE_KVM_IRQ_LINE) + setting
    static let inspection = registers + numbers(MINGLE_KVM_GET_IRQCHIP)
    static let sharing = numbers(
        MINGLE_KVM_GET_DIRTY_LOG, MINGLE_KVM_CLEAR_DIRTY_LOG, MINGLE_UFFDIO_WRITEPROTECT, MINGLE_UFFDIO_WAKE,
        MINGLE_UFFDIO_REGISTER, MINGLE_UFFDIO_UNREGISTER, MINGLE_UFFDIO_COPY,
        MINGLE_KVM_SET_USER_MEMORY_REGION)
    static let prices =
        numbers(
            MINGLE_KVM_RUN, MINGLE_KVM_CLEAR_DIRTY_LOG, MINGLE_KVM_CREATE_VM, MINGLE_KVM_CHECK_EXTENSION,
            MINGLE_KVM_GET_VCPU_MMAP_SIZE, MINGLE_KVM_ENABLE_CAP, MINGLE_KVM_SET_IDENTITY_MAP_ADDR,
            MINGLE_KVM_SET_TSS_ADDR, MINGLE_KVM_SET_USER_MEMORY_REGION, MINGLE_KVM_CREATE_IRQCHIP,
            MINGLE_KVM_CREATE_VCPU, MINGLE_KVM_SET_CPUID2, MINGLE_KVM_GET_SUPPORTED_CPUID,
            MINGLE_KVM_GET_SREGS, MINGLE_KVM_GET_LAPIC) + setting
    // asm-generic/ioctls.h: TCGETS, TCSETS, TIOCGPGRP
    static let terminal: [UInt32] = [0x5401, 0x5402, 0x540F]
}
