internal import CLinux
internal import GuestMemory

/// Why KVM_RUN returned, decoded (Documentation/virt/kvm/api.rst, "The kvm_run structure").
enum VCPUExit: Equatable, Sendable {
    /// KVM_EXIT_IO: `count` accesses of `size` bytes each; the data is read and written through the vCPU.
    case port(PortAccess)
    /// KVM_EXIT_MMIO, a read: answer with `completeRead`.
    case mmioRead(GuestAddress, size: Int)
    /// KVM_EXIT_MMIO, a write.
    case mmioWrite(GuestAddress, size: Int, value: UInt64)
    /// KVM_EXIT_HLT: only without the in-kernel interrupt controller.
    case halt
    /// KVM_EXIT_SHUTDOWN: a triple fault.
    case shutdown
    /// KVM_EXIT_SYSTEM_EVENT: the guest asks for something (type, as the API document numbers it).
    case systemEvent(UInt32)
    /// KVM_EXIT_FAIL_ENTRY: hardware refused the guest's state.
    case failedEntry(reason: UInt64, processor: UInt32)
    /// KVM_EXIT_INTERNAL_ERROR: the suberror and its data words.
    case internalError(suberror: UInt32, data: [UInt64])
    /// KVM_RUN was interrupted, by a kick or because immediate_exit was set (EINTR).
    case interrupted
    /// KVM_EXIT_IRQ_WINDOW_OPEN, KVM_EXIT_INTR and others that ask for nothing.
    case nothing
    /// Any reason that this VMM does not enable or know.
    case unsupported(UInt32)
}

/// One KVM_EXIT_IO.
struct PortAccess: Equatable, Sendable {
    let port: UInt16
    let isWrite: Bool
    /// Bytes of one access: 1, 2 or 4.
    let size: Int
    /// Repetitions (INS and OUTS).
    let count: Int
    /// Where in the shared page the data lies; checked.
    let dataOffset: Int
}
