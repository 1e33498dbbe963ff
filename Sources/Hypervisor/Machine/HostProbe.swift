internal import GuestMemory
internal import LinuxHost
internal import CLinux

/// Measures what this host's KVM does with a guest's kernel-mode code.
public enum HostProbe {
    /// The outcome of ``ring0()``.
    public struct Ring0: Sendable, Equatable {
        /// Nanoseconds for one instruction of a short loop in ring 0.
        public let nanosecondsPerInstruction: Double
        /// Hardware, or an emulator of hardware: fast enough for an operating system. KVM's own instruction emulator
        /// needs about 1000 ns and lacks many instructions.
        public var runsNatively: Bool { nanosecondsPerInstruction < 200 }
    }

    /// Runs `mov ecx, n; 1: dec ecx; jnz 1b; hlt` in 32-bit protected mode with two values of n, so that entry and exit
    /// cancel out. Takes a few milliseconds. Also runs where no Linux guest could.
    public static func ring0(kvmPath: String = "/dev/kvm") throws(HypervisorError) -> Ring0 {
        let system = try KVMSystem(path: kvmPath)
        let (few, many): (UInt32, UInt32) = (16, 4016)
        let base = try timeLoop(system, count: few)
        let long = try timeLoop(system, count: many)
        let difference = Double(long > base ? long - base : 0)
        return Ring0(nanosecondsPerInstruction: difference / Double(2 * (many - few)))
    }

    /// Nanoseconds from entry to the HLT, the better of three runs.
    private static func timeLoop(_ system: KVMSystem, count: UInt32) throws(HypervisorError) -> UInt64 {
        let memory = try memoryAccess { () throws(GuestMemoryError) in
            try GuestMemory(
                sizeInBytes: 64 << 10, lowLimit: Layout.holeStart, highStart: Layout.fourGiB, name: "probe")
        }
        var code = ByteWriter()
        code.put(UInt8(0xB9))
        code.put(count)
        code.put([0x49, 0x75, 0xFD, 0xF4])
        let start = GuestAddress(0x1000)
        try memoryAccess { () throws(GuestMemoryError) in try memory.write(code.bytes, at: start) }
        return try hypervisorSystem { () throws(LinuxError) in
            let machine = try system.createMachine()
            try machine.setIdentityMapAddress(Layout.identityMap)
            try machine.setTSSAddress(Layout.tss)
            try machine.setMemoryRegion(
                slot: 0, start: GuestAddress(0), sizeInBytes: memory.sizeInBytes,
                hostAddress: memory.hostAddress(of: memory.regions[0]), flags: 0)
            let processor = try machine.createProcessor(0)
            try processor.setCPUID(try system.supportedCPUID())
            let special = try VCPUState.flatProtectedMode(processor.specialRegisters())
            var best = UInt64.max
            for _ in 0..<3 {
                try processor.setSpecialRegisters(special)
                var registers = kvm_regs()
                registers.rip = start.value
                registers.rflags = 2
                try processor.setRegisters(registers)
                let before = monotonicNanoseconds()
                while true {
                    let exit = try processor.enter()
                    if exit == .halt { break }
                    guard exit == .interrupted else {
                        throw LinuxError(operation: "KVM_RUN", code: 5, subject: "probe of ring 0: \(exit)")
                    }
                }
                best = min(best, monotonicNanoseconds() - before)
            }
            return best
        }
    }

    /// What KVM says of a capability: its number, 0 if absent.
    public static func capabilities(kvmPath: String = "/dev/kvm") throws(HypervisorError) -> [(
        KVMCapability, Int32
    )] {
        let system = try KVMSystem(path: kvmPath)
        return KVMCapability.all.map { ($0, system.checkExtension($0)) }
    }
}
