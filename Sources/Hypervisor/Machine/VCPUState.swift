internal import CLinux
internal import GuestMemory
internal import LinuxHost

/// The state that vCPUs are given before they first run.
enum VCPUState {
    private enum Control {
        static let protection: UInt64 = 1  // CR0.PE
        static let longModeCR0: UInt64 = 0x8005_0033  // PG AM WP NE ET MP PE
        static let physicalAddressExtension: UInt64 = 1 << 5  // CR4.PAE
        static let sse: UInt64 = 0x600  // CR4.OSFXSR | OSXMMEXCPT
        static let longMode: UInt64 = 0x500  // EFER.LME | LMA
    }
    private enum MSR {
        static let miscEnable: UInt32 = 0x1A0
        static let mtrrDefault: UInt32 = 0x2FF
    }

    /// Sets registers for the entry point. Linux's other vCPUs stay as KVM makes them, waiting for their start-up IPI.
    static func apply(
        _ entry: EntryPoint, to processor: KVMProcessor, index: Int
    ) throws(LinuxError) {
        try setFloatingPoint(processor)
        // Fast string operations; memory is write-back but where the guest says otherwise.
        try processor.setMSRs([(MSR.miscEnable, 1), (MSR.mtrrDefault, 0x806)])
        try setInterruptPins(processor)
        if case .payload = entry.mode {} else if index > 0 { return }

        var registers = kvm_regs()
        registers.rip = entry.address
        registers.rflags = 2
        var special = try processor.specialRegisters()
        switch entry.mode {
        case .pvh(let startInfo):
            registers.rbx = startInfo.value
            special = flatProtectedMode(special)
        case .linux64(let parameters, let tables):
            registers.rsi = parameters.value
            registers.rsp = Layout.bootParameters.value
            setSegments(
                &special, code: segment(0x10, type: 0xB, long: true),
                data: segment(0x18, type: 0x3, big: true))
            setLongMode(&special, tables, sse: false)
        case .payload(let information, let stacks, let tables):
            registers.rdi = information.value
            registers.rsi = UInt64(index)
            registers.rsp = PayloadBoot.stackPointer(index, stacks: stacks)
            registers.rflags = 0x3002  // IOPL 3
            setSegments(
                &special, code: segment(0x0B, type: 0xB, privilege: 3, long: true),
                data: segment(0x13, type: 0x3, privilege: 3, big: true))
            setLongMode(&special, tables, sse: true)
            special.tr = taskSegment()
            try processor.setRunnable()
        }
        special.gdt.base = Layout.descriptorTable.value
        special.gdt.limit = 39
        special.idt.base = 0
        special.idt.limit = 0
        try processor.setSpecialRegisters(special)
        try processor.setRegisters(registers)
    }

    /// 32-bit protected mode, flat segments, no paging.
    static func flatProtectedMode(_ current: kvm_sregs) -> kvm_sregs {
        var special = current
        setSegments(
            &special, code: segment(0x08, type: 0xB, big: true), data: segment(0x10, type: 0x3, big: true))
        special.cr0 = Control.protection | 0x10
        return special
    }

    /// A descriptor table that agrees with the segments above: null, and code and data at 0x08/0x10 and 0x10/0x18.
    static func descriptorTable(for mode: EntryPoint.Mode) -> [UInt8] {
        let code32: UInt64 = 0x00CF_9B00_0000_FFFF
        let code64: UInt64 = 0x00AF_9B00_0000_FFFF
        let data: UInt64 = 0x00CF_9300_0000_FFFF
        let userCode64: UInt64 = 0x00AF_FB00_0000_FFFF
        let userData: UInt64 = 0x00CF_F300_0000_FFFF
        var table = ByteWriter()
        let entries: [UInt64] =
            switch mode {
            case .pvh: [0, code32, data, 0, 0]
            case .linux64: [0, 0, code64, data, 0]
            case .payload: [0, userCode64, userData] + taskDescriptor()
            }
        entries.forEach { table.put($0) }
        return table.bytes
    }

    /// Bytes of a TSS and of the I/O permission map behind it, one bit a port, and the byte of ones that ends it.
    private static let taskStateSize = 104 + 8192 + 1

    /// A TSS that permits every port (Intel SDM vol. 1, 19.5.2). IOPL 3 alone should do, but some hosts run ring 3 with
    /// IOPL 0 whatever the guest's flags say, and then ask the map.
    static func taskState() -> [UInt8] {
        var state = ByteWriter()
        state.pad(to: taskStateSize - 1)
        state.set(UInt16(104), at: 102)
        state.put(UInt8(0xFF))
        return state.bytes
    }

    private static func taskSegment() -> kvm_segment {
        var segment = kvm_segment()
        segment.base = Layout.taskState.value
        segment.limit = UInt32(taskStateSize - 1)
        segment.selector = 0x18
        segment.type = 0xB  // 64-bit TSS, busy
        segment.present = 1
        return segment
    }

    /// The descriptor of ``taskSegment()``: 16 bytes.
    private static func taskDescriptor() -> [UInt64] {
        let base = Layout.taskState.value
        let limit = UInt64(taskStateSize - 1)
        return [limit | (base & 0xFF_FFFF) << 16 | 0x8B << 40 | (base >> 24 & 0xFF) << 56, base >> 32]
    }

    private static func setLongMode(_ special: inout kvm_sregs, _ tables: GuestAddress, sse: Bool) {
        special.cr0 = Control.longModeCR0
        special.cr3 = tables.value
        special.cr4 = Control.physicalAddressExtension | (sse ? Control.sse : 0)
        special.efer = Control.longMode
    }

    private static func segment(
        _ selector: UInt16, type: UInt8, privilege: UInt8 = 0, long: Bool = false, big: Bool = false
    ) -> kvm_segment {
        var segment = kvm_segment()
        segment.limit = UInt32.max
        segment.selector = selector
        segment.type = type
        segment.present = 1
        segment.dpl = privilege
        segment.s = 1
        segment.l = long ? 1 : 0
        segment.db = big ? 1 : 0
        segment.g = 1
        return segment
    }

    private static func setSegments(_ special: inout kvm_sregs, code: kvm_segment, data: kvm_segment) {
        special.cs = code
        special.ds = data
        special.es = data
        special.fs = data
        special.gs = data
        special.ss = data
    }

    private static func setFloatingPoint(_ processor: KVMProcessor) throws(LinuxError) {
        var state = kvm_fpu()
        state.fcw = 0x37F
        state.mxcsr = 0x1F80
        try processor.setFloatingPoint(state)
    }

    /// LINT0 takes the PIC (ExtINT), LINT1 is NMI, as firmware leaves them (Intel SDM vol. 3, 11.5.1).
    private static func setInterruptPins(_ processor: KVMProcessor) throws(LinuxError) {
        var state = try processor.localAPIC()
        unsafe withUnsafeMutableBytes(of: &state.regs) { registers in
            // SAFETY: the register page is 1024 bytes long; both offsets lie within.
            unsafe registers[0x351] = 0x07
            unsafe registers[0x361] = 0x04
            unsafe registers[0x352] = 0
            unsafe registers[0x362] = 0
        }
        try processor.setLocalAPIC(state)
    }
}
