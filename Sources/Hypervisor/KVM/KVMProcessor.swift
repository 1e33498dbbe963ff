internal import CLinux
internal import GuestMemory
internal import LinuxHost
internal import Glibc

/// A vCPU's descriptor: the vCPU ioctls, and the only reader of `kvm_run`. Used by the vCPU's own thread alone, but for
/// `requestImmediateExit`, the set-up before the thread starts, and looks at its state while a pause holds the thread.
@safe
final class KVMProcessor: @unchecked Sendable {
    let descriptor: OwnedDescriptor
    private let shared: MemoryMapping
    /// How often in a row KVM_RUN ended with EAGAIN.
    private var refusals = 0
    private static let refusalLimit = 1000

    init(_ descriptor: consuming OwnedDescriptor, mappingSize: Int32) throws(LinuxError) {
        guard Int(mappingSize) >= MemoryLayout<kvm_run>.size else {
            throw LinuxError(operation: "KVM_GET_VCPU_MMAP_SIZE", code: EINVAL)
        }
        shared = try .device(descriptor, sizeInBytes: UInt64(mappingSize))
        self.descriptor = descriptor
    }

    private var run: UnsafeMutablePointer<kvm_run> {
        // SAFETY: the mapping is at least a kvm_run long (checked in init), page aligned, and lives as long as self.
        unsafe shared.base.assumingMemoryBound(to: kvm_run.self)
    }

    // MARK: - running

    /// Makes a KVM_RUN that is going on end when a signal arrives, and the next one end at once. From any thread.
    func requestImmediateExit(_ wanted: Bool) { unsafe mingle_run_set_immediate_exit(run, wanted ? 1 : 0) }

    /// KVM_RUN: completes the access of the last exit, enters the guest, and says why it came back.
    func enter() throws(LinuxError) -> VCPUExit {
        let result = mingle_ioctl(descriptor.number, MINGLE_KVM_RUN, 0)
        if result == -EAGAIN {
            refusals += 1
            if refusals >= Self.refusalLimit, try isRunnable() { throw refused() }
            return .interrupted
        }
        refusals = 0
        if result == -EINTR { return .interrupted }
        try checked(result, "KVM_RUN")
        // SAFETY: KVM filled the structure before KVM_RUN returned and leaves it alone until the next; `exit_reason`
        // says which member of the union holds.
        switch Int32(bitPattern: unsafe run.pointee.exit_reason) {
        case KVM_EXIT_IO: return try portExit()
        case KVM_EXIT_MMIO: return mmioExit()
        case KVM_EXIT_HLT: return .halt
        case KVM_EXIT_SHUTDOWN: return .shutdown
        case KVM_EXIT_SYSTEM_EVENT: return .systemEvent(unsafe run.pointee.system_event.type)
        case KVM_EXIT_FAIL_ENTRY:
            return .failedEntry(
                reason: unsafe run.pointee.fail_entry.hardware_entry_failure_reason,
                processor: unsafe run.pointee.fail_entry.cpu)
        case KVM_EXIT_INTERNAL_ERROR: return internalErrorExit()
        case KVM_EXIT_INTR: return .interrupted
        case KVM_EXIT_IRQ_WINDOW_OPEN:
            return .nothing
        default: return .unsupported(unsafe run.pointee.exit_reason)
        }
    }

    private func portExit() throws(LinuxError) -> VCPUExit {
        let io = unsafe run.pointee.io
        let access = PortAccess(
            port: io.port, isWrite: Int32(io.direction) == KVM_EXIT_IO_OUT, size: Int(io.size),
            count: Int(io.count), dataOffset: Int(clamping: io.data_offset))
        // KVM is trusted, but a wrong number here would be a wild pointer.
        let (bytes, overflow) = access.size.multipliedReportingOverflow(by: access.count)
        guard [1, 2, 4].contains(access.size), !overflow, access.dataOffset <= shared.sizeInBytes,
            bytes <= shared.sizeInBytes - access.dataOffset
        else { throw LinuxError(operation: "KVM_EXIT_IO", code: EPROTO, subject: "port \(io.port)") }
        return .port(access)
    }

    private func mmioExit() -> VCPUExit {
        let mmio = unsafe run.pointee.mmio
        let address = GuestAddress(mmio.phys_addr)
        let size = min(Int(mmio.len), 8)
        guard mmio.is_write != 0 else { return .mmioRead(address, size: size) }
        var value: UInt64 = 0
        var data = mmio.data
        unsafe withUnsafeBytes(of: &data) { bytes in
            for index in (0..<size).reversed() { value = value << 8 | UInt64(unsafe bytes[index]) }
        }
        return .mmioWrite(address, size: size, value: value)
    }

    private func internalErrorExit() -> VCPUExit {
        var words = unsafe run.pointee.internal.data
        let count = min(Int(unsafe run.pointee.internal.ndata), 16)
        let data = unsafe withUnsafeBytes(of: &words) { bytes in
            (0..<count).map { unsafe bytes.loadUnaligned(fromByteOffset: $0 * 8, as: UInt64.self) }
        }
        return .internalError(suberror: unsafe run.pointee.internal.suberror, data: data)
    }

    /// The value of one repetition of a port write.
    func portValue(_ access: PortAccess, _ index: Int) -> UInt32 {
        precondition(index >= 0 && index < access.count, "within the repetitions")
        var value: UInt32 = 0
        for byte in (0..<access.size).reversed() {
            // SAFETY: `portExit` checked that size * count bytes at the offset lie in the shared page.
            value =
                value << 8
                | UInt32(unsafe mingle_load8(shared.base + access.dataOffset + index * access.size + byte))
        }
        return value
    }

    /// Answers one repetition of a port read.
    func setPortValue(_ access: PortAccess, _ index: Int, _ value: UInt32) {
        precondition(index >= 0 && index < access.count, "within the repetitions")
        for byte in 0..<access.size {
            // SAFETY: as in portValue.
            unsafe mingle_store8(
                shared.base + access.dataOffset + index * access.size + byte,
                UInt8(truncatingIfNeeded: value >> UInt32(byte * 8)))
        }
    }

    /// Answers an MMIO read, up to 8 bytes, little endian.
    func completeRead(_ value: UInt64) {
        unsafe withUnsafeMutableBytes(of: &(unsafe run.pointee.mmio.data)) { bytes in
            for index in 0..<8 { unsafe bytes[index] = UInt8(truncatingIfNeeded: value >> UInt64(index * 8)) }
        }
    }

    // MARK: - state; SAFETY: each argument is a live local of the type that the ioctl takes.

    func registers() throws(LinuxError) -> kvm_regs {
        var value = kvm_regs()
        try call("KVM_GET_REGS", MINGLE_KVM_GET_REGS, &value)
        return value
    }
    func setRegisters(_ registers: kvm_regs) throws(LinuxError) {
        var value = registers
        try call("KVM_SET_REGS", MINGLE_KVM_SET_REGS, &value)
    }
    func specialRegisters() throws(LinuxError) -> kvm_sregs {
        var value = kvm_sregs()
        try call("KVM_GET_SREGS", MINGLE_KVM_GET_SREGS, &value)
        return value
    }
    func setSpecialRegisters(_ registers: kvm_sregs) throws(LinuxError) {
        var value = registers
        try call("KVM_SET_SREGS", MINGLE_KVM_SET_SREGS, &value)
    }
    func setFloatingPoint(_ state: kvm_fpu) throws(LinuxError) {
        var value = state
        try call("KVM_SET_FPU", MINGLE_KVM_SET_FPU, &value)
    }
    func localAPIC() throws(LinuxError) -> kvm_lapic_state {
        var value = kvm_lapic_state()
        try call("KVM_GET_LAPIC", MINGLE_KVM_GET_LAPIC, &value)
        return value
    }
    func setLocalAPIC(_ state: kvm_lapic_state) throws(LinuxError) {
        var value = state
        try call("KVM_SET_LAPIC", MINGLE_KVM_SET_LAPIC, &value)
    }
    /// EAGAIN is usual for a vCPU that waits to be started by another. For one that runs it is final: KVM starts a thread
    /// of its own at the first entry (vhost_task_create), which a limit of processes may forbid.
    private func isRunnable() throws(LinuxError) -> Bool {
        var value = kvm_mp_state()
        try call("KVM_GET_MP_STATE", MINGLE_KVM_GET_MP_STATE, &value)
        return value.mp_state == UInt32(KVM_MP_STATE_RUNNABLE)
    }
    private func refused() -> LinuxError {
        LinuxError(
            operation: "KVM_RUN", code: EAGAIN,
            subject: "KVM may start no thread of its own: \(ProcessLimit.startHint())")
    }
    func setRunnable() throws(LinuxError) {
        var value = kvm_mp_state(mp_state: UInt32(KVM_MP_STATE_RUNNABLE))
        try call("KVM_SET_MP_STATE", MINGLE_KVM_SET_MP_STATE, &value)
    }
    func multiprocessingState() throws(LinuxError) -> kvm_mp_state {
        var value = kvm_mp_state()
        try call("KVM_GET_MP_STATE", MINGLE_KVM_GET_MP_STATE, &value)
        return value
    }
    func events() throws(LinuxError) -> kvm_vcpu_events {
        var value = kvm_vcpu_events()
        try call("KVM_GET_VCPU_EVENTS", MINGLE_KVM_GET_VCPU_EVENTS, &value)
        return value
    }
    /// KVM_TRANSLATE: the GPA of a linear address by the vCPU's page tables, or nil when it is not mapped.
    func translate(_ linearAddress: UInt64) throws(LinuxError) -> GuestAddress? {
        var value = kvm_translation()
        value.linear_address = linearAddress
        try call("KVM_TRANSLATE", MINGLE_KVM_TRANSLATE, &value)
        return value.valid == 0 ? nil : GuestAddress(value.physical_address)
    }
    /// KVM_GET_TSC_KHZ, in kHz.
    func timestampFrequency() throws(LinuxError) -> Int32 {
        try checked(mingle_ioctl(descriptor.number, MINGLE_KVM_GET_TSC_KHZ, 0), "KVM_GET_TSC_KHZ")
    }
    /// KVM_KVMCLOCK_CTRL: tells the guest's watchdog that it was stopped by us; EINVAL when it has no kvmclock.
    func noteHostPause() { _ = mingle_ioctl(descriptor.number, MINGLE_KVM_KVMCLOCK_CTRL, 0) }

    func setCPUID(_ entries: [kvm_cpuid_entry2]) throws(LinuxError) {
        guard entries.count <= Int(MINGLE_CPUID_MAX), let table = unsafe mingle_cpuid_create() else {
            throw LinuxError(operation: "KVM_SET_CPUID2", code: ENOMEM)
        }
        // SAFETY: the table has room for MINGLE_CPUID_MAX entries.
        defer { unsafe free(table) }
        unsafe table.pointee.nent = UInt32(entries.count)
        for (index, entry) in entries.enumerated() { unsafe mingle_cpuid_entries(table)[index] = entry }
        try checked(
            unsafe mingle_ioctl_pointer(descriptor.number, MINGLE_KVM_SET_CPUID2, table), "KVM_SET_CPUID2")
    }

    /// KVM_SET_MSRS; fails when KVM takes fewer than given.
    func setMSRs(_ values: [(index: UInt32, value: UInt64)]) throws(LinuxError) {
        guard values.count <= Int(MINGLE_MSRS_MAX), let list = unsafe mingle_msrs_create() else {
            throw LinuxError(operation: "KVM_SET_MSRS", code: ENOMEM)
        }
        // SAFETY: the list has room for MINGLE_MSRS_MAX entries.
        defer { unsafe free(list) }
        unsafe list.pointee.nmsrs = UInt32(values.count)
        for (position, entry) in values.enumerated() {
            unsafe mingle_msrs_entries(list)[position].index = entry.index
            unsafe mingle_msrs_entries(list)[position].data = entry.value
        }
        let taken = try checked(
            unsafe mingle_ioctl_pointer(descriptor.number, MINGLE_KVM_SET_MSRS, list), "KVM_SET_MSRS")
        guard Int(taken) == values.count else {
            throw LinuxError(
                operation: "KVM_SET_MSRS", code: EINVAL,
                subject: "MSR 0x" + String(values[Int(taken)].index, radix: 16))
        }
    }

    /// KVM_GET_MSRS of one; nil when KVM does not know it.
    func modelSpecificRegister(_ index: UInt32) throws(LinuxError) -> UInt64? {
        guard let list = unsafe mingle_msrs_create() else {
            throw LinuxError(operation: "KVM_GET_MSRS", code: ENOMEM)
        }
        // SAFETY: the list has room for MINGLE_MSRS_MAX entries.
        defer { unsafe free(list) }
        unsafe list.pointee.nmsrs = 1
        unsafe mingle_msrs_entries(list)[0].index = index
        let read = try checked(
            unsafe mingle_ioctl_pointer(descriptor.number, MINGLE_KVM_GET_MSRS, list), "KVM_GET_MSRS")
        return read == 1 ? unsafe mingle_msrs_entries(list)[0].data : nil
    }

    func call<T>(_ name: String, _ request: UInt, _ argument: inout T) throws(LinuxError) {
        let result = unsafe withUnsafeMutablePointer(to: &argument) { pointer in
            unsafe mingle_ioctl_pointer(descriptor.number, request, UnsafeMutableRawPointer(pointer))
        }
        try checked(result, name)
    }
}
