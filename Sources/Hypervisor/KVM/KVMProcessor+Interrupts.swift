internal import CLinux
internal import GuestMemory
internal import LinuxHost

extension KVMProcessor {
    private enum MSR {
        static let timestamp: UInt32 = 0x10
        static let deadline: UInt32 = 0x6E0
    }
    /// Offsets in the local APIC's page (Intel SDM vol. 3, table 11-1).
    private enum APIC {
        static let registers: [(name: String, offset: Int)] = [
            ("id", 0x20), ("tpr", 0x80), ("ppr", 0xA0), ("svr", 0xF0), ("esr", 0x280), ("icr", 0x300),
            ("lvt_timer", 0x320), ("lint0", 0x350), ("lint1", 0x360), ("timer_initial", 0x380),
            ("timer_now", 0x390), ("timer_divide", 0x3E0),
        ]
        static let inService = 0x100
        static let requested = 0x200
    }
    /// KVM_MP_STATE_*, as the API document numbers them.
    private static let states = ["runnable", "uninitialized", "init received", "halted", "sipi received"]

    /// What the vCPU waits for: whether it is halted, events on their way, its local APIC and its timers. While its thread is
    /// not in KVM_RUN.
    func describeInterrupts() -> String {
        do throws(LinuxError) {
            return try [stateLine(), eventLine(), apicLines(), timerLine()].joined(separator: "\n")
        } catch { return "  (interrupts cannot be read: \(error))" }
    }

    private func stateLine() throws(LinuxError) -> String {
        let state = Int(try multiprocessingState().mp_state)
        let flags = try registers().rflags
        return "  state: \(Self.states.indices.contains(state) ? Self.states[state] : "\(state)"),"
            + " interrupts \(flags & 1 << 9 != 0 ? "enabled" : "disabled")"
    }

    private func eventLine() throws(LinuxError) -> String {
        let events = try events()
        return "  events: exception \(events.exception.injected) nr \(events.exception.nr),"
            + " interrupt \(events.interrupt.injected) nr 0x\(hex(UInt64(events.interrupt.nr)))"
            + " soft \(events.interrupt.soft) shadow \(events.interrupt.shadow),"
            + " nmi \(events.nmi.injected) pending \(events.nmi.pending) masked \(events.nmi.masked)"
    }

    private func apicLines() throws(LinuxError) -> String {
        var page = try localAPIC()
        return unsafe withUnsafeBytes(of: &page.regs) { bytes in
            // SAFETY: the register page is 1024 bytes long; all offsets lie within.
            func word(_ offset: Int) -> UInt32 {
                unsafe bytes.loadUnaligned(fromByteOffset: offset, as: UInt32.self)
            }
            func vectors(_ offset: Int) -> String {
                let set = (0..<256).filter { word(offset + 16 * ($0 / 32)) & 1 << UInt32($0 % 32) != 0 }
                return set.isEmpty ? "none" : set.map { "0x" + hex(UInt64($0)) }.joined(separator: " ")
            }
            let cells = APIC.registers.map { "\($0.name)=\(hex(UInt64(word($0.offset))))" }
            return "  apic: " + cells.joined(separator: " ")
                + "\n  vectors requested: \(vectors(APIC.requested)); in service: \(vectors(APIC.inService))"
        }
    }

    /// The timer's deadline counts only in that mode.
    private func timerLine() throws(LinuxError) -> String {
        let now = try modelSpecificRegister(MSR.timestamp) ?? 0
        let frequency = Int64(try timestampFrequency())
        let deadline = try modelSpecificRegister(MSR.deadline) ?? 0
        guard deadline != 0 else { return "  timer: no deadline is set, tsc=\(now) at \(frequency) kHz" }
        let ahead = Int64(bitPattern: deadline &- now)
        return "  timer: deadline=\(deadline) tsc=\(now) at \(frequency) kHz: "
            + "\(frequency > 0 ? "\(ahead.magnitude / UInt64(frequency)) ms" : "") \(ahead < 0 ? "ago" : "ahead")"
    }

    /// Words on the stack that could be return addresses of a kernel, the nearest first.
    func describeStack(_ memory: GuestMemory) -> String? {
        guard let registers = try? registers(), let physical = try? translate(registers.rsp) else {
            return nil
        }
        let count = Int(Page.size - physical.value % Page.size) & ~7
        guard registers.rsp % 8 == 0, let bytes = try? memory.read(physical, count: count) else { return nil }
        var found: [String] = []
        for start in stride(from: 0, to: bytes.count, by: 8) where found.count < 16 {
            let word = (0..<8).reversed().reduce(UInt64(0)) { $0 << 8 | UInt64(bytes[start + $1]) }
            // Linux maps its text into the last 2 GiB.
            if word >= 0xFFFF_FFFF_8000_0000, word < 0xFFFF_FFFF_FF00_0000 { found.append(hex(word)) }
        }
        return found.isEmpty ? nil : "  text addresses on the stack: " + found.joined(separator: " ")
    }
}
