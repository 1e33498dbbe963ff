import Confinement
import Testing

@Suite("The filters of system calls")
struct FilterTests {
    /// The number of "this" process.
    private static let process: UInt32 = 4711

    private static func interpreter(_ kind: ThreadKind) -> FilterInterpreter {
        FilterInterpreter(
            program: FilterProgram(SystemCallTable.rules(of: kind), process: process).instructions)
    }

    /// Arguments with which all checks of a row hold.
    private static func allowed(_ rule: SystemCallRule) -> [UInt64] {
        var arguments = [UInt64](repeating: 0x5555_5550, count: 6)
        for check in rule.checks {
            switch check {
            case .isOne(let values, let argument): arguments[argument] = UInt64(values[0])
            case .lacks(let bits, let argument): arguments[argument] = UInt64(~bits)
            case .isNull(let argument): arguments[argument] = 0
            case .isThisProcess(let argument): arguments[argument] = UInt64(process)
            }
        }
        return arguments
    }

    /// Values of an argument with which a check does not hold.
    private static func refused(_ check: ArgumentCheck) -> (argument: Int, values: [UInt64]) {
        switch check {
        case .isOne(let values, let argument):
            let near = values.flatMap { [$0 &+ 1, $0 ^ 0x8000_0000] } + [.max]
            return (argument, near.filter { !values.contains($0) }.map { UInt64($0) })
        case .lacks(let bits, let argument):
            return (argument, [UInt64(bits), UInt64(bits | 3), .max])
        case .isNull(let argument): return (argument, [1, 1 << 32, .max])
        case .isThisProcess(let argument): return (argument, [0, 1, UInt64(process) + 1, .max])
        }
    }

    @Test(
        "each row allows its call, and with any other argument it is refused", arguments: ThreadKind.allCases)
    func rows(kind: ThreadKind) {
        let filter = Self.interpreter(kind)
        let rules = SystemCallTable.rules(of: kind)
        for rule in rules {
            let number = rule.call.rawValue
            let arguments = Self.allowed(rule)
            #expect(filter.verdict(number, arguments) == FilterProgram.Verdict.allow, "\(rule)")
            for check in rule.checks {
                let (argument, values) = Self.refused(check)
                for value in values {
                    var altered = arguments
                    altered[argument] = value
                    // Unless it is another row's way to be allowed.
                    let isAnother = rules.contains { other in
                        other.call == rule.call && other.checks != rule.checks
                            && other.checks.allSatisfy { Self.holds($0, altered) }
                    }
                    if isAnother { continue }
                    #expect(
                        filter.verdict(number, altered) == FilterProgram.Verdict.trap,
                        "\(kind), \(rule.call), argument \(argument) = \(value)")
                }
            }
        }
    }

    /// What the checks say, told without the program.
    private static func holds(_ check: ArgumentCheck, _ arguments: [UInt64]) -> Bool {
        switch check {
        case .isOne(let values, let argument):
            values.contains(UInt32(truncatingIfNeeded: arguments[argument]))
        case .lacks(let bits, let argument):
            UInt32(truncatingIfNeeded: arguments[argument]) & bits == 0
        case .isNull(let argument): arguments[argument] == 0
        case .isThisProcess(let argument): UInt32(truncatingIfNeeded: arguments[argument]) == process
        }
    }

    @Test("every other number is refused, of whatever kind of thread", arguments: ThreadKind.allCases)
    func others(kind: ThreadKind) {
        let filter = Self.interpreter(kind)
        let listed = Set(SystemCallTable.rules(of: kind).map(\.call.rawValue))
        for number in UInt32(0)..<1024 where !listed.contains(number) {
            #expect(filter.verdict(number) == FilterProgram.Verdict.trap, "\(number)")
        }
        // The x32 interface: the same calls, with bit 30.
        for number in listed {
            #expect(filter.verdict(number | 1 << 30) == FilterProgram.Verdict.trap)
        }
    }

    @Test("what does not come from x86_64 ends the process", arguments: ThreadKind.allCases)
    func architecture(kind: ThreadKind) {
        // AUDIT_ARCH_I386: an int 0x80 from 64-bit code has it.
        #expect(
            Self.interpreter(kind).verdict(1, architecture: 0x4000_0003) == FilterProgram.Verdict.killProcess)
    }

    /// Not everything that advises is about one's own memory: MADV_HWPOISON and MADV_SOFT_OFFLINE (asm-generic/mman-common.h)
    /// take a frame from all who map it.
    @Test("memory that others map cannot be failed", arguments: ThreadKind.allCases)
    func advice(kind: ThreadKind) {
        for advice: UInt64 in [9, 12, 21, 100, 101] {
            #expect(
                Self.interpreter(kind).verdict(28, [4096, 4096, advice]) == FilterProgram.Verdict.trap,
                "\(advice)")
        }
    }

    @Test("the lists are short")
    func lengths() {
        #expect(SystemCallTable.count(of: .main) <= 45)
        #expect(SystemCallTable.count(of: .vcpu) <= 25)
        for kind in ThreadKind.allCases {
            let program = FilterProgram(SystemCallTable.rules(of: kind), process: 1)
            #expect(program.instructions.count <= 4096)
        }
    }

    @Test("every row says what for; none is there twice")
    func reasons() {
        for rule in SystemCallTable.rules {
            #expect(rule.reason.count >= 4 && rule.isRare?.isEmpty != true && !rule.kinds.isEmpty)
        }
        for kind in ThreadKind.allCases {
            let rules = SystemCallTable.rules(of: kind)
            for call in Set(rules.map(\.call)) {
                let ways = rules.filter { $0.call == call }.map(\.checks)
                // A row without checks makes all others of the call and kind pointless.
                #expect(ways.count == 1 || !ways.contains { $0.isEmpty }, "\(kind), \(call)")
            }
        }
    }

    @Test("no way leads to a path, a connection, a process, a thread or executable memory")
    func never() {
        let forbidden: Set<String> = [
            "open", "openat", "openat2", "creat", "stat", "newfstatat", "unlink", "unlinkat", "rename",
            "renameat", "renameat2", "link", "linkat", "chmod", "fchmod", "fchmodat", "socket", "connect",
            "bind", "listen", "execve", "execveat", "fork", "vfork", "clone", "clone3", "ptrace", "mprotect",
            "kill", "rt_sigaction", "prctl", "io_uring_setup", "io_uring_enter", "pidfd_getfd", "bpf",
        ]
        for call in SystemCallName.allCases { #expect(!forbidden.contains("\(call)")) }
    }
}
