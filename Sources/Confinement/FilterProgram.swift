/// An instruction of the kernel's classic packet filters (Documentation/networking/filter.rst, struct sock_filter).
public struct FilterInstruction: Equatable, Sendable {
    public var code: UInt16
    /// How many instructions to pass over when a comparison holds, and when it does not.
    public var whenTrue: UInt8 = 0
    public var whenFalse: UInt8 = 0
    public var operand: UInt32
}

/// A filter of system calls, assembled from rows of the table (Documentation/userspace-api/seccomp_filter.rst).
///
/// ```
///  not x86_64? --> the process is killed
///  number of the call = that of a row? --no--> the next row ... none is left --> refused: SIGSYS
///         | yes
///         +--> all checks of one way hold? --> allowed;   of none --> refused
/// ```
public struct FilterProgram: Equatable, Sendable {
    /// What a program says of a call (include/uapi/linux/seccomp.h).
    public enum Verdict {
        public static let allow: UInt32 = 0x7fff_0000
        /// The call is not made; the thread gets SIGSYS.
        public static let trap: UInt32 = 0x0003_0000
        public static let killProcess: UInt32 = 0x8000_0000
    }
    /// AUDIT_ARCH_X86_64 (include/uapi/linux/audit.h).
    public static let architecture: UInt32 = 0xC000_003E
    private enum Code {
        static let load: UInt16 = 0x20  // BPF_LD | BPF_W | BPF_ABS
        static let jumpEqual: UInt16 = 0x15  // BPF_JMP | BPF_JEQ | BPF_K
        static let jumpAnyBit: UInt16 = 0x45  // BPF_JMP | BPF_JSET | BPF_K
        static let jump: UInt16 = 0x05  // BPF_JMP | BPF_JA
        static let answer: UInt16 = 0x06  // BPF_RET | BPF_K
    }

    public private(set) var instructions: [FilterInstruction] = []

    /// - Parameters:
    ///   - rules: those of one kind of thread, in the order in which calls are compared.
    ///   - process: the number of this process.
    public init(_ rules: [SystemCallRule], process: UInt32) {
        add(Code.load, Self.offsetOfArchitecture)
        add(Code.jumpEqual, Self.architecture, whenTrue: 1)
        add(Code.answer, Verdict.killProcess)
        add(Code.load, Self.offsetOfNumber)
        var done: Set<UInt32> = []
        for rule in rules where done.insert(rule.call.rawValue).inserted {
            let ways = rules.filter { $0.call == rule.call }.map(\.checks)
            let body = Self.body(ways, process)
            add(Code.jumpEqual, rule.call.rawValue, whenTrue: 1)
            add(Code.jump, UInt32(body.count))
            instructions += body
        }
        // No number of the x32 interface, which has bit 30, is in the table.
        add(Code.answer, Verdict.trap)
    }

    // struct seccomp_data: int nr; u32 arch; u64 instruction_pointer; u64 args[6]
    private static let offsetOfNumber: UInt32 = 0
    private static let offsetOfArchitecture: UInt32 = 4
    private static func offset(ofArgument index: Int) -> UInt32 { 16 + 8 * UInt32(index) }

    private mutating func add(_ code: UInt16, _ operand: UInt32, whenTrue: UInt8 = 0) {
        instructions.append(FilterInstruction(code: code, whenTrue: whenTrue, operand: operand))
    }

    private static func body(_ ways: [[ArgumentCheck]], _ process: UInt32) -> [FilterInstruction] {
        // A way without checks allows everything: no other matters.
        if ways.contains(where: \.isEmpty) {
            return [FilterInstruction(code: Code.answer, operand: Verdict.allow)]
        }
        return ways.flatMap { way($0, process) } + [
            FilterInstruction(code: Code.answer, operand: Verdict.trap)
        ]
    }

    /// Ends with "allowed"; whatever check fails goes on behind that.
    private static func way(_ checks: [ArgumentCheck], _ process: UInt32) -> [FilterInstruction] {
        var result = [FilterInstruction(code: Code.answer, operand: Verdict.allow)]
        for check in checks.reversed() {
            let end = UInt8(result.count)
            func load(_ offset: UInt32) -> FilterInstruction {
                FilterInstruction(code: Code.load, operand: offset)
            }
            func equal(_ values: [UInt32], _ argument: Int) -> [FilterInstruction] {
                [load(offset(ofArgument: argument))]
                    + values.enumerated().map { index, value in
                        let left = UInt8(values.count - 1 - index)
                        return FilterInstruction(
                            code: Code.jumpEqual, whenTrue: left, whenFalse: left == 0 ? end : 0,
                            operand: value)
                    }
            }
            switch check {
            case .isOne(let values, let argument): result = equal(values, argument) + result
            case .isThisProcess(let argument): result = equal([process], argument) + result
            case .lacks(let bits, let argument):
                result =
                    [
                        load(offset(ofArgument: argument)),
                        FilterInstruction(
                            code: Code.jumpAnyBit, whenTrue: end, whenFalse: 0, operand: bits),
                    ] + result
            case .isNull(let argument):
                result =
                    [
                        load(offset(ofArgument: argument)),
                        FilterInstruction(code: Code.jumpEqual, whenTrue: 0, whenFalse: end + 2, operand: 0),
                        load(offset(ofArgument: argument) + 4),
                        FilterInstruction(code: Code.jumpEqual, whenTrue: 0, whenFalse: end, operand: 0),
                    ] + result
            }
        }
        precondition(result.count < 256, "a way fits into one jump")
        return result
    }
}
