import GuestMemory
import Testing

@testable import Hypervisor

@Suite struct ConfigurationTests {
    private func isValid(_ change: (inout VirtualMachineConfiguration) -> Void) -> Bool {
        var configuration = VirtualMachineConfiguration()
        configuration.kernelPath = "kernel"
        change(&configuration)
        do { try configuration.validate() } catch { return false }
        return true
    }

    @Test func limits() {
        #expect(isValid { _ in })
        #expect(isValid { $0.processorCount = 32 } && !isValid { $0.processorCount = 33 })
        #expect(!isValid { $0.processorCount = 0 } && !isValid { $0.processorCount = -1 })
        #expect(
            isValid { $0.memorySizeInBytes = 2 * mib } && !isValid { $0.memorySizeInBytes = 2 * mib - 4096 })
        #expect(!isValid { $0.kernelPath = "" })
    }

    @Test func everyEndHasItsWord() {
        let ends: [(GuestEnd, String)] = [
            (.poweredOff, "powered-off"), (.exited(0), "exited"), (.exited(77), "exited"),
            (.rebooted, "rebooted"), (.panicked, "panicked"), (.tripleFault("x"), "triple-fault"),
            (.failed("x"), "failed"), (.stopped, "stopped"),
        ]
        for (end, word) in ends { #expect(end.word == word) }
        #expect(GuestEnd.exited(3).description == "guest exited with status 3")
        #expect(GuestEnd.failed("no memory").description == "guest cannot go on: no memory")
    }

    @Test func numbersInHexadecimal() {
        #expect(
            hex(0) == "0" && hex(0xABC) == "abc" && hex(5, digits: 4) == "0005"
                && hex(0x12345, digits: 4) == "12345")
    }

    /// Nothing below 1 MiB that is written for one way of booting lies over another thing of the same way.
    @Test func theLowMemoryOfPayloadsAndKernelsDoesNotOverlap() {
        let payload: [(UInt64, UInt64)] = [
            (Layout.payloadInformation.value, 4096), (Layout.payloadArguments.value, 4096),
            (Layout.descriptorTable.value, 40), (Layout.taskState.value, UInt64(VCPUState.taskState().count)),
            (Layout.pageTables.value, Layout.lowMemoryEnd.value - Layout.pageTables.value),
        ]
        let kernel: [(UInt64, UInt64)] = [
            (Layout.descriptorTable.value, 40), (Layout.startInfo.value, 4096),
            (Layout.bootParameters.value, 4096),
            (Layout.commandLine.value, UInt64(Layout.commandLineLimit) + 1),
            (Layout.pageTables.value, Layout.lowMemoryEnd.value - Layout.pageTables.value),
            (Layout.acpiTables.value, Layout.highMemoryBase.value - Layout.acpiTables.value),
        ]
        for parts in [payload, kernel] {
            for (left, right) in zip(parts, parts.dropFirst()) { #expect(left.0 + left.1 <= right.0) }
        }
    }
}
