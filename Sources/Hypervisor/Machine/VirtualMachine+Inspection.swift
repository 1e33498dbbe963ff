internal import GuestMemory
internal import LinuxHost

extension VirtualMachine {
    /// What every vCPU is at, and what it waits for, as text for people: registers, the instruction, events, the local
    /// APIC, timers; then the IOAPIC's lines and the serial line. Holds the guest meanwhile, as a pause does.
    /// - Parameter patience: how long vCPUs may take to leave the guest, in nanoseconds. Of one that does not, nothing else
    ///   can be said.
    public func describeProcessors(patience: UInt64) -> String {
        let late = control.pause(until: monotonicNanoseconds() + patience, kick: kick)
        defer { control.resume() }
        var lines: [String] = []
        for processor in processors {
            if late.contains(processor.index) {
                lines.append(
                    "  vCPU \(processor.index) did not leave the guest within \(patience / 1_000_000) ms")
                continue
            }
            lines.append(processor.processor.describeState(of: processor.index, memory))
            lines.append(processor.processor.describeInterrupts())
            if let stack = processor.processor.describeStack(memory) { lines.append(stack) }
        }
        lines.append(describeLines())
        lines.append("  " + serial.describe())
        return lines.joined(separator: "\n")
    }

    /// The IOAPIC's entries that are not masked.
    private func describeLines() -> String {
        guard let chip = try? machine.inputOutputAPIC() else { return "  (the IOAPIC cannot be read)" }
        let used = chip.entries.enumerated().filter { $0.element & 1 << 16 == 0 }.map { line, entry in
            "\(line)->0x\(hex(entry & 0xFF))\(entry & 1 << 15 != 0 ? " level" : "")"
                + (entry & 1 << 14 != 0 ? " unanswered" : "")
                + (chip.levels & 1 << UInt32(line) != 0 ? " high" : "")
        }
        return "  ioapic: " + (used.isEmpty ? "all masked" : used.joined(separator: ", "))
    }
}
