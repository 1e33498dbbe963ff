public import GuestMemory
internal import LinuxHost

internal import CLinux

/// Measures prices with a small guest of its own, whose vCPU starts in ring 3 so that its code runs at full speed on
/// every KVM. Takes some milliseconds.
public enum DisturbanceProbe {
    /// Pages that the guest writes in a round.
    private static let pageCount = 32
    /// Each time is the best of so many: whatever else runs on the host can only make them longer.
    private static let rounds = 3
    private static let code = GuestAddress(0x20_0000)
    private static let exitCode = GuestAddress(0x20_0800)
    private static let data = GuestAddress(0x21_0000)
    private static let size: UInt64 = 4 << 20

    /// Makes the guest, measures, and takes it down. Not on a vCPU's thread. Opens nothing.
    public static func measure(_ system: KVMSystem) throws(HypervisorError) -> DisturbancePrices {
        let memory = try memoryAccess { () throws(GuestMemoryError) in
            try GuestMemory(
                sizeInBytes: size, lowLimit: Layout.holeStart, highStart: Layout.fourGiB, name: "prices")
        }
        let tables = try PageTables(in: memory, forUserMode: true)
        let entry = EntryPoint(
            address: code.value,
            mode: .payload(
                information: Layout.payloadInformation, stacks: Layout.payloadArguments,
                pageTables: tables.root))
        try memoryAccess { () throws(GuestMemoryError) in
            try memory.write(VCPUState.descriptorTable(for: entry.mode), at: Layout.descriptorTable)
            try memory.write(VCPUState.taskState(), at: Layout.taskState)
            try memory.write(writeLoop(), at: code)
            // out 0x80, al; jmp back
            try memory.write([0xE6, 0x80, 0xEB, 0xFC], at: exitCode)
        }
        return try hypervisorSystem { () throws(LinuxError) in
            let machine = try system.createMachine()
            try machine.enable(.manualDirtyLog, argument: KVMMachine.dirtyLogManualProtect)
            try machine.setIdentityMapAddress(Layout.identityMap)
            try machine.setTSSAddress(Layout.tss)
            try machine.setMemoryRegion(
                slot: 0, start: GuestAddress(0), sizeInBytes: memory.sizeInBytes,
                hostAddress: memory.hostAddress(of: memory.regions[0]), flags: KVMMachine.logDirtyPages)
            try machine.createInterruptController()
            let processor = try machine.createProcessor(0)
            try processor.setCPUID(try system.supportedCPUID())
            try VCPUState.apply(entry, to: processor, index: 0)
            return try measure(machine, processor)
        }
    }

    private static func measure(_ machine: KVMMachine, _ processor: KVMProcessor) throws(LinuxError)
        -> DisturbancePrices
    {
        let pages = Int(size >> Page.shift)
        let first = Int(data.value >> Page.shift)
        var written = [UInt64](repeating: 0, count: pages / 64)
        for page in first..<first + pageCount { written[page / 64] |= 1 << UInt64(page % 64) }
        // One page of them: only where a bit was set does KVM make the vCPU forget its translations.
        var one = [UInt64](repeating: 0, count: pages / 64)
        one[first / 64] = 1 << UInt64(first % 64)

        // Twice: the first time memory is allocated.
        for _ in 0..<2 { _ = try timeRound(processor) }
        var (warm, cleared, flushed, exit) = (UInt64.max, UInt64.max, UInt64.max, UInt64.max)
        for _ in 0..<rounds {
            warm = min(warm, try timeRound(processor))
            try machine.clearDirtyLog(slot: 0, firstPage: 0, pageCount: pages, bitmap: written[...])
            cleared = min(cleared, try timeRound(processor))
            _ = try timeRound(processor)
            try machine.clearDirtyLog(slot: 0, firstPage: 0, pageCount: pages, bitmap: one[...])
            flushed = min(flushed, try timeRound(processor))
        }
        var registers = kvm_regs()
        registers.rip = exitCode.value
        registers.rflags = 0x3002
        _ = try timeRound(processor)
        try processor.setRegisters(registers)
        for _ in 0..<rounds * 4 { exit = min(exit, try timeRound(processor)) }
        let fault = Double(cleared > warm ? cleared - warm : 0) / Double(pageCount)
        let refill = max(0, Double(flushed) - Double(warm) - fault)
        // A vCPU that is made to leave costs one exit that KVM handles by itself. A fault contains one, as does an exit to this
        // process; the cheaper of the two is nearer.
        return DisturbancePrices(fault: fault, call: min(fault, Double(exit)) + refill)
    }

    /// `1: mov ecx, n; mov edi, data; 2: add byte [rdi], 1; add rdi, 4096; dec ecx; jnz 2b; out 0x80, al; jmp 1b`
    private static func writeLoop() -> [UInt8] {
        var code = ByteWriter()
        code.put(UInt8(0xB9))
        code.put(UInt32(pageCount))
        code.put(UInt8(0xBF))
        code.put(UInt32(truncatingIfNeeded: data.value))
        code.put([0x80, 0x07, 0x01, 0x48, 0x81, 0xC7, 0x00, 0x10, 0x00, 0x00, 0xFF, 0xC9, 0x75, 0xF2])
        code.put([0xE6, 0x80, 0xEB, 0xE4])
        return code.bytes
    }

    /// Nanoseconds until the next write to the port.
    private static func timeRound(_ processor: KVMProcessor) throws(LinuxError) -> UInt64 {
        let before = monotonicNanoseconds()
        while true {
            let exit = try processor.enter()
            if case .port = exit { return monotonicNanoseconds() - before }
            guard exit == .interrupted || exit == .nothing else {
                throw LinuxError(operation: "KVM_RUN", code: 5, subject: "probe of prices: \(exit)")
            }
        }
    }
}
