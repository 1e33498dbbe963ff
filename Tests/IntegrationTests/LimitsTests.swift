import GuestMemory
import MingleSupport
import Testing

@testable import Hypervisor

/// What the command line tool checks before it starts a VMM is what the VMM checks; neither may import the other.
@Suite("Limits of guests")
struct LimitsTests {
    @Test("are the same for the command line tool and the hypervisor")
    func agreement() {
        #expect(RunChecks.maximumCPUs == VirtualMachineConfiguration.maximumProcessorCount)
        #expect(RunChecks.minimumPayloadMemory >= VirtualMachineConfiguration.minimumMemorySizeInBytes)
        #expect(KernelCommandLine.maximumLength == Layout.commandLineLimit)
    }
}
