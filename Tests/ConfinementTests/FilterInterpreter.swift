import Confinement

/// Runs a filter as the kernel does (net/core/filter.c, kernel/seccomp.c), in Swift: only what filters are made of here.
struct FilterInterpreter {
    let program: [FilterInstruction]

    /// What the filter says of a call.
    func verdict(
        _ number: UInt32, _ arguments: [UInt64] = [], architecture: UInt32 = FilterProgram.architecture
    ) -> UInt32? {
        var data: [UInt32] = [number, architecture, 0, 0]
        for index in 0..<6 {
            let value = index < arguments.count ? arguments[index] : 0
            data += [UInt32(truncatingIfNeeded: value), UInt32(truncatingIfNeeded: value >> 32)]
        }
        var (accumulator, place): (UInt32, Int) = (0, 0)
        while place < program.count {
            let instruction = program[place]
            place += 1
            switch instruction.code {
            case 0x20:
                guard instruction.operand % 4 == 0, Int(instruction.operand / 4) < data.count else {
                    return nil
                }
                accumulator = data[Int(instruction.operand / 4)]
            case 0x15:
                place += Int(
                    accumulator == instruction.operand ? instruction.whenTrue : instruction.whenFalse)
            case 0x35:
                place += Int(
                    accumulator >= instruction.operand ? instruction.whenTrue : instruction.whenFalse)
            case 0x45:
                place += Int(
                    accumulator & instruction.operand != 0 ? instruction.whenTrue : instruction.whenFalse)
            case 0x05: place += Int(instruction.operand)
            case 0x06: return instruction.operand
            default: return nil
            }
        }
        return nil
    }
}
