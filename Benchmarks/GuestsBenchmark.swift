import CLinux
import Glibc

/// Several guests at once: when each ran, and what each costs while all are up.
enum GuestsBenchmark {
    static func run(_ programs: Programs, count: Int, kernel: String) throws {
        let isPayload = kernel.hasPrefix("payload:")
        // Linux waits for its power button; hello sleeps when told so, other payloads should idle by themselves.
        let words =
            ["--kernel", kernel, "--timeout", "600"]
            + (isPayload ? ["--memory", "16M"] : ["--grace", "60", "--cmdline", "mingle.hold"])
            + (kernel == "payload:hello" ? ["--", "do=sleep"] : [])
        let before = try KernelUse()
        let guests = try (1...count).map { number in
            try Guest(programs, name: "\(isPayload ? "payload" : "linux")\(number)", words)
        }
        let text = isPayload ? "\n" : Guest.readyText
        for guest in guests where try guest.process.wait(for: text) == nil {
            throw Failure("\(guest.name) ended early, after: \(guest.process.output)")
        }
        // The last page tables and buffers are made just after.
        usleep(500_000)
        let uses = try guests.map { try MemoryUse(process: $0.process.identifier) }
        let after = try KernelUse()
        for guest in guests { guest.process.signal(SIGTERM) }
        var table = Table(
            "guest", "first instruction", "user space", "VMM's own", "code", "page tables", "guest RAM", "end"
        )
        for (guest, use) in zip(guests, uses) {
            let (status, times) = try guest.finish()
            // A payload has no power button: it is ended by force, 128 + SIGTERM.
            let isExpected = status == (isPayload ? 143 : 0)
            guard isExpected else { throw Failure("\(guest.name) ended with status \(status)") }
            guard count <= 8 || guest.name.hasSuffix("1") else { continue }
            table.add(
                guest.name, milliseconds(times.entered), times.ready.map { seconds($0) } ?? "-",
                memory(use.anonymous),
                memory(use.files), memory(use.pageTables), memory(use.guestMemory),
                isPayload ? "stopped" : "powered off")
        }
        let sum = uses.reduce(MemoryUse(), +)
        table.add(
            "mean of \(count)", "", "", memory(sum.anonymous / count), memory(sum.files / count),
            memory(sum.pageTables / count), memory(sum.guestMemory / count), "")
        table.show()
        print(
            "  kernel, for each guest: slab \(memory((after.slab - before.slab) / count)), page tables of processes "
                + "\(memory((after.pageTables - before.pageTables) / count)), of KVM "
                + memory((after.secondaryPageTables - before.secondaryPageTables) / count))
    }
}
