internal import CLinux
internal import GuestMemory
internal import LinuxHost

extension KVMProcessor {
    /// Registers and the bytes at RIP, for a report. On the vCPU's own thread.
    func describeState(of index: Int, _ memory: GuestMemory) -> String {
        guard let registers = try? registers(), let special = try? specialRegisters() else {
            return "  (the state of vCPU \(index) cannot be read)"
        }
        let general: [(String, UInt64)] = [
            ("rax", registers.rax), ("rbx", registers.rbx), ("rcx", registers.rcx), ("rdx", registers.rdx),
            ("rsi", registers.rsi), ("rdi", registers.rdi), ("rsp", registers.rsp), ("rbp", registers.rbp),
            ("r8", registers.r8), ("r9", registers.r9), ("r10", registers.r10), ("r11", registers.r11),
            ("r12", registers.r12), ("r13", registers.r13), ("r14", registers.r14), ("r15", registers.r15),
            ("rip", registers.rip), ("flags", registers.rflags), ("cr0", special.cr0), ("cr2", special.cr2),
            ("cr3", special.cr3), ("cr4", special.cr4), ("efer", special.efer),
            ("cs", UInt64(special.cs.selector)),
        ]
        var lines = ["  vCPU \(index):"]
        for row in stride(from: 0, to: general.count, by: 4) {
            let cells = general[row..<min(row + 4, general.count)].map { "\($0.0)=\(hex($0.1, digits: 16))" }
            lines.append("  " + cells.joined(separator: " "))
        }
        let linear = special.cs.base &+ registers.rip
        if let physical = try? translate(linear),
            let code = codeBytes(physical, memory)
        {
            lines.append("  code at rip: " + code.map { hex(UInt64($0), digits: 2) }.joined(separator: " "))
        } else {
            lines.append("  code at rip: not mapped")
        }
        return lines.joined(separator: "\n")
    }

    /// Bytes at an address, up to the longest instruction.
    private func codeBytes(_ address: GuestAddress, _ memory: GuestMemory) -> [UInt8]? {
        let toPageEnd = Int(Page.size - address.value % Page.size)
        return try? memory.read(address, count: min(15, toPageEnd))
    }
}
