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
///  number of the call: below the middle one of the table's? --> that half, and so on, until one is left
///         | is it that one? --no--> refused: SIGSYS
///         | yes
///         +--> all checks of one way hold? --> allowed;   of none --> refused
/// ```
/// Halves instead of a list: when a filter is installed, the kernel tries it with every number that there is.
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
        static let jumpNotBelow: UInt16 = 0x35  // BPF_JMP | BPF_JGE | BPF_K
        static let jumpAnyBit: UInt16 = 0x45  // BPF_JMP | BPF_JSET | BPF_K
        static let jump: UInt16 = 0x05  // BPF_JMP | BPF_JA
        static let answer: UInt16 = 0x06  // BPF_RET | BPF_K
    }

    public private(set) var instructions: [FilterInstruction] = []

    /// - Parameters:
    ///   - rules: those of one kind of thread.
    ///   - process: the number of this process.
    public init(_ rules: [SystemCallRule], process: UInt32) {
        instructions.reserveCapacity(256)
        add(Code.load, Self.offsetOfArchitecture)
        add(Code.jumpEqual, Self.architecture, whenTrue: 1)
        add(Code.answer, Verdict.killProcess)
        add(Code.load, Self.offsetOfNumber)
        let sorted = rules.sorted { $0.call.rawValue < $1.call.rawValue }
        var calls: [Range<Int>] = []
        for index in sorted.indices {
            if index > 0, sorted[index].call == sorted[index - 1].call {
                calls[calls.count - 1] = calls[calls.count - 1].lowerBound..<index + 1
            } else {
                calls.append(index..<index + 1)
            }
        }
        addSearch(calls[...], sorted, process)
    }

    // struct seccomp_data: int nr; u32 arch; u64 instruction_pointer; u64 args[6]
    private static let offsetOfNumber: UInt32 = 0
    private static let offsetOfArchitecture: UInt32 = 4
    private static func offset(ofArgument index: Int) -> UInt32 { 16 + 8 * UInt32(index) }

    private mutating func add(_ code: UInt16, _ operand: UInt32, whenTrue: UInt8 = 0, whenFalse: UInt8 = 0) {
        instructions.append(
            FilterInstruction(code: code, whenTrue: whenTrue, whenFalse: whenFalse, operand: operand))
    }

    /// - Parameter calls: places in `rules`, those of one call each, by its number.
    private mutating func addSearch(
        _ calls: ArraySlice<Range<Int>>, _ rules: [SystemCallRule], _ process: UInt32
    ) {
        guard let first = calls.first else { return add(Code.answer, Verdict.trap) }
        if calls.count == 1 {
            // No number of the x32 interface, which has bit 30, is in the table.
            add(Code.jumpEqual, rules[first.lowerBound].call.rawValue, whenTrue: 1)
            add(Code.answer, Verdict.trap)
            return addWays(rules[first], process)
        }
        let middle = calls.startIndex + calls.count / 2
        add(Code.jumpNotBelow, rules[calls[middle].lowerBound].call.rawValue, whenFalse: 1)
        let jump = instructions.count
        add(Code.jump, 0)
        addSearch(calls[..<middle], rules, process)
        instructions[jump].operand = UInt32(instructions.count - jump - 1)
        addSearch(calls[middle...], rules, process)
    }

    private mutating func addWays(_ rules: ArraySlice<SystemCallRule>, _ process: UInt32) {
        // A way without checks allows everything: no other matters.
        if rules.contains(where: \.checks.isEmpty) { return add(Code.answer, Verdict.allow) }
        for rule in rules { addWay(rule.checks, process) }
        add(Code.answer, Verdict.trap)
    }

    /// Ends with "allowed"; whatever check fails goes on behind that.
    private mutating func addWay(_ checks: [ArgumentCheck], _ process: UInt32) {
        // Jumps that leave: where they stand, and whether they do when the comparison holds.
        var leaving: [(place: Int, whenTrue: Bool)] = []
        for check in checks {
            switch check {
            case .isOne(let values, let argument):
                add(Code.load, Self.offset(ofArgument: argument))
                addEqual(values, &leaving)
            case .isThisProcess(let argument):
                add(Code.load, Self.offset(ofArgument: argument))
                addEqual([process], &leaving)
            case .lacks(let bits, let argument):
                add(Code.load, Self.offset(ofArgument: argument))
                leaving.append((instructions.count, true))
                add(Code.jumpAnyBit, bits)
            case .isNull(let argument):
                for half in 0..<2 as Range<UInt32> {
                    add(Code.load, Self.offset(ofArgument: argument) + 4 * half)
                    addEqual([0], &leaving)
                }
            }
        }
        add(Code.answer, Verdict.allow)
        for (place, whenTrue) in leaving {
            let distance = UInt8(instructions.count - place - 1)
            if whenTrue {
                instructions[place].whenTrue = distance
            } else {
                instructions[place].whenFalse = distance
            }
        }
    }

    private mutating func addEqual(_ values: [UInt32], _ leaving: inout [(place: Int, whenTrue: Bool)]) {
        for (index, value) in values.enumerated() {
            let left = values.count - 1 - index
            if left == 0 { leaving.append((instructions.count, false)) }
            add(Code.jumpEqual, value, whenTrue: UInt8(left))
        }
    }
}
