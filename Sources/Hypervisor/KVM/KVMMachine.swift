internal import CLinux
internal import GuestMemory
internal import LinuxHost
internal import Glibc

/// A VM's descriptor: the VM ioctls (Documentation/virt/kvm/api.rst, "VM ioctls"). One method, one ioctl.
final class KVMMachine: Sendable {
    let descriptor: OwnedDescriptor
    let processorMappingSize: Int32
    /// Memslot flag: record writes (KVM_MEM_LOG_DIRTY_PAGES).
    static let logDirtyPages: UInt32 = 1 << 0
    /// Arguments of KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2 (KVM_DIRTY_LOG_MANUAL_PROTECT_ENABLE, KVM_DIRTY_LOG_INITIALLY_SET).
    static let dirtyLogManualProtect: UInt64 = 1 << 0
    static let dirtyLogInitiallySet: UInt64 = 1 << 1

    init(_ descriptor: consuming OwnedDescriptor, processorMappingSize: Int32) {
        self.descriptor = descriptor
        self.processorMappingSize = processorMappingSize
    }

    // SAFETY (all calls here): the argument is a live local of the type that the ioctl takes.

    /// KVM_SET_USER_MEMORY_REGION; a size of 0 deletes the slot.
    func setMemoryRegion(
        slot: UInt32, start: GuestAddress, sizeInBytes: UInt64, hostAddress: UInt64, flags: UInt32
    ) throws(LinuxError) {
        var region = kvm_userspace_memory_region(
            slot: slot, flags: flags, guest_phys_addr: start.value, memory_size: sizeInBytes,
            userspace_addr: hostAddress)
        try call("KVM_SET_USER_MEMORY_REGION", MINGLE_KVM_SET_USER_MEMORY_REGION, &region)
    }

    /// KVM_SET_TSS_ADDR: three pages in the hole that Intel's real mode needs.
    func setTSSAddress(_ address: GuestAddress) throws(LinuxError) {
        try checked(
            mingle_ioctl(descriptor.number, MINGLE_KVM_SET_TSS_ADDR, UInt(address.value)), "KVM_SET_TSS_ADDR")
    }

    /// KVM_SET_IDENTITY_MAP_ADDR: one page in the hole; before the first vCPU.
    func setIdentityMapAddress(_ address: GuestAddress) throws(LinuxError) {
        var value = address.value
        try call("KVM_SET_IDENTITY_MAP_ADDR", MINGLE_KVM_SET_IDENTITY_MAP_ADDR, &value)
    }

    /// KVM_CREATE_IRQCHIP: PIC, IOAPIC and a local APIC for each vCPU, in the kernel.
    func createInterruptController() throws(LinuxError) {
        try checked(mingle_ioctl(descriptor.number, MINGLE_KVM_CREATE_IRQCHIP, 0), "KVM_CREATE_IRQCHIP")
    }

    /// KVM_CREATE_PIT2: the 8254 timer, with port 0x61 emulated as well.
    func createTimer() throws(LinuxError) {
        var configuration = kvm_pit_config()
        configuration.flags = UInt32(KVM_PIT_SPEAKER_DUMMY)
        try call("KVM_CREATE_PIT2", MINGLE_KVM_CREATE_PIT2, &configuration)
    }

    /// KVM_IRQ_LINE: sets the level of a GSI.
    func setInterruptLine(_ gsi: UInt32, level: Bool) throws(LinuxError) {
        var line = kvm_irq_level()
        line.irq = gsi
        line.level = level ? 1 : 0
        try call("KVM_IRQ_LINE", MINGLE_KVM_IRQ_LINE, &line)
    }

    /// KVM_IOEVENTFD: counts writes of a 32-bit value to an address in an eventfd.
    func registerNotifications(_ event: borrowing OwnedDescriptor, at address: GuestAddress, value: UInt32)
        throws(LinuxError)
    {
        var request = kvm_ioeventfd()
        request.datamatch = UInt64(value)
        request.addr = address.value
        request.len = 4
        request.fd = event.number
        request.flags = 1 << 0  // KVM_IOEVENTFD_FLAG_DATAMATCH
        try call("KVM_IOEVENTFD", MINGLE_KVM_IOEVENTFD, &request)
    }

    /// KVM_IRQFD: each signal of an eventfd is an edge on a GSI.
    func registerInterrupts(_ event: borrowing OwnedDescriptor, gsi: UInt32) throws(LinuxError) {
        var request = kvm_irqfd()
        request.fd = UInt32(event.number)
        request.gsi = gsi
        try call("KVM_IRQFD", MINGLE_KVM_IRQFD, &request)
    }

    /// KVM_GET_IRQCHIP of the IOAPIC: its 24 redirection entries, and the levels of its inputs, one bit each.
    func inputOutputAPIC() throws(LinuxError) -> (entries: [UInt64], levels: UInt32) {
        var chip = kvm_irqchip()
        chip.chip_id = UInt32(KVM_IRQCHIP_IOAPIC)
        try call("KVM_GET_IRQCHIP", MINGLE_KVM_GET_IRQCHIP, &chip)
        // SAFETY: struct kvm_irqchip is 520 bytes: two words, then struct kvm_ioapic_state, whose `irr` is at 16 and whose
        // `redirtbl` of 24 words is at 24.
        return unsafe withUnsafeBytes(of: &chip) { bytes in
            (
                (0..<24).map { unsafe bytes.load(fromByteOffset: 32 + 8 * $0, as: UInt64.self) },
                unsafe bytes.load(fromByteOffset: 24, as: UInt32.self)
            )
        }
    }

    /// KVM_ENABLE_CAP on the VM.
    func enable(_ capability: KVMCapability, argument: UInt64) throws(LinuxError) {
        var request = kvm_enable_cap()
        request.cap = UInt32(capability.number)
        request.args.0 = argument
        try call("KVM_ENABLE_CAP", MINGLE_KVM_ENABLE_CAP, &request)
    }

    /// KVM_GET_DIRTY_LOG: a bit for each page of the slot; clears it unless the manual protocol is on.
    func dirtyLog(slot: UInt32, pageCount: Int) throws(LinuxError) -> [UInt64] {
        var bitmap = [UInt64](repeating: 0, count: (pageCount + 63) / 64)
        var failure: LinuxError?
        unsafe bitmap.withUnsafeMutableBytes { buffer in
            var request = unsafe kvm_dirty_log()
            unsafe request.slot = slot
            unsafe request.dirty_bitmap = buffer.baseAddress
            do throws(LinuxError) {
                unsafe try call("KVM_GET_DIRTY_LOG", MINGLE_KVM_GET_DIRTY_LOG, &request)
            } catch {
                failure = error
            }
        }
        if let failure { throw failure }
        return bitmap
    }

    /// KVM_CLEAR_DIRTY_LOG: clears the set bits of `bitmap`, which begins at page `firstPage` (a multiple of 64), and
    /// write-protects those pages again. `pageCount` is a multiple of 64 unless it ends with the slot.
    func clearDirtyLog(
        slot: UInt32, firstPage: UInt64, pageCount: Int, bitmap: ArraySlice<UInt64>
    ) throws(LinuxError) {
        precondition(
            bitmap.count >= (pageCount + 63) / 64 && firstPage % 64 == 0, "the bitmap covers the pages")
        var words = Array(bitmap)
        var failure: LinuxError?
        unsafe words.withUnsafeMutableBytes { buffer in
            var request = unsafe kvm_clear_dirty_log()
            unsafe request.slot = slot
            unsafe request.first_page = firstPage
            unsafe request.num_pages = UInt32(pageCount)
            unsafe request.dirty_bitmap = buffer.baseAddress
            do throws(LinuxError) {
                unsafe try call("KVM_CLEAR_DIRTY_LOG", MINGLE_KVM_CLEAR_DIRTY_LOG, &request)
            } catch {
                failure = error
            }
        }
        if let failure { throw failure }
    }

    /// KVM_CREATE_VCPU, with the page that it shares mapped.
    func createProcessor(_ index: Int) throws(LinuxError) -> KVMProcessor {
        let fd = try checked(
            mingle_ioctl(descriptor.number, MINGLE_KVM_CREATE_VCPU, UInt(index)), "KVM_CREATE_VCPU",
            "vCPU \(index)")
        return try KVMProcessor(OwnedDescriptor(adopting: fd), mappingSize: processorMappingSize)
    }

    private func call<T>(_ name: String, _ request: UInt, _ argument: inout T) throws(LinuxError) {
        let result = unsafe withUnsafeMutablePointer(to: &argument) { pointer in
            unsafe mingle_ioctl_pointer(descriptor.number, request, UnsafeMutableRawPointer(pointer))
        }
        try checked(result, name)
    }
}
