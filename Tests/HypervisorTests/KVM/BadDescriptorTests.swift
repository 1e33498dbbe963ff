import CLinux
import Foundation
import TestSupport
import Testing

@testable import GuestMemory
@testable import LinuxHost
@testable import Hypervisor

/// Every wrapper on what is no KVM: the call's own name and errno come back.
@Suite(.serialized) struct BadDescriptorTests {
    /// Something that is open and knows no KVM request, or is not open at all.
    enum Kind: CaseIterable {
        case closed, null
        var code: Int32 { self == .closed ? EBADF : ENOTTY }
        func descriptor() throws -> OwnedDescriptor {
            switch self {
            case .closed: OwnedDescriptor(adopting: -1)
            case .null: try OwnedDescriptor.open("/dev/null", flags: O_RDWR)
            }
        }
    }

    private func expect(_ operation: String, _ code: Int32, _ body: () throws(LinuxError) -> Void) {
        do {
            try body()
            Issue.record("\(operation) worked")
        } catch {
            #expect(error.operation == operation && error.code == code, "\(error)")
        }
    }

    @Test(arguments: Kind.allCases) func system(kind: Kind) throws {
        let system = KVMSystem(unchecked: try kind.descriptor())
        let code = kind.code
        expect("KVM_GET_API_VERSION", code) { () throws(LinuxError) in _ = try system.apiVersion() }
        expect("KVM_GET_VCPU_MMAP_SIZE", code) { () throws(LinuxError) in
            _ = try system.processorMappingSize()
        }
        expect("KVM_GET_SUPPORTED_CPUID", code) { () throws(LinuxError) in _ = try system.supportedCPUID() }
        expect("KVM_CREATE_VM", code) { () throws(LinuxError) in _ = try system.createMachine() }
        for capability in KVMCapability.all { #expect(system.checkExtension(capability) == 0) }
    }

    @Test(arguments: Kind.allCases) func machine(kind: Kind) throws {
        let machine = KVMMachine(try kind.descriptor(), processorMappingSize: 12288)
        let code = kind.code
        expect("KVM_SET_USER_MEMORY_REGION", code) { () throws(LinuxError) in
            try machine.setMemoryRegion(
                slot: 0, start: GuestAddress(0), sizeInBytes: 4096, hostAddress: 0, flags: 0)
        }
        expect("KVM_SET_TSS_ADDR", code) { () throws(LinuxError) in try machine.setTSSAddress(Layout.tss) }
        expect("KVM_SET_IDENTITY_MAP_ADDR", code) { () throws(LinuxError) in
            try machine.setIdentityMapAddress(Layout.identityMap)
        }
        expect("KVM_CREATE_IRQCHIP", code) { () throws(LinuxError) in try machine.createInterruptController()
        }
        expect("KVM_CREATE_PIT2", code) { () throws(LinuxError) in try machine.createTimer() }
        expect("KVM_IRQ_LINE", code) { () throws(LinuxError) in try machine.setInterruptLine(4, level: true) }
        expect("KVM_GET_IRQCHIP", code) { () throws(LinuxError) in _ = try machine.inputOutputAPIC() }
        expect("KVM_ENABLE_CAP", code) { () throws(LinuxError) in
            try machine.enable(.manualDirtyLog, argument: 1)
        }
        expect("KVM_GET_DIRTY_LOG", code) { () throws(LinuxError) in
            _ = try machine.dirtyLog(slot: 0, pageCount: 65)
        }
        expect("KVM_CLEAR_DIRTY_LOG", code) { () throws(LinuxError) in
            try machine.clearDirtyLog(slot: 0, firstPage: 0, pageCount: 65, bitmap: [1, 1])
        }
        expect("KVM_CREATE_VCPU", code) { () throws(LinuxError) in _ = try machine.createProcessor(0) }
    }

    /// A vCPU whose shared page is a memory file's; for EBADF its number is then given to a path descriptor, on which
    /// every ioctl fails so.
    private func makeProcessor(_ kind: Kind) throws -> KVMProcessor {
        let file = try OwnedDescriptor.memoryFile(named: "test")
        try file.truncate(to: 12288)
        let number = file.number
        let processor = try KVMProcessor(file, mappingSize: 12288)
        if kind == .closed {
            let path = try OwnedDescriptor.open("/", flags: 0o10000000)  // O_PATH
            try #require(dup2(path.number, number) == number)
        }
        return processor
    }

    @Test(arguments: Kind.allCases) func processor(kind: Kind) throws {
        let processor = try makeProcessor(kind)
        let code = kind.code
        expect("KVM_RUN", code) { () throws(LinuxError) in _ = try processor.enter() }
        expect("KVM_GET_REGS", code) { () throws(LinuxError) in _ = try processor.registers() }
        expect("KVM_SET_REGS", code) { () throws(LinuxError) in try processor.setRegisters(kvm_regs()) }
        expect("KVM_GET_SREGS", code) { () throws(LinuxError) in _ = try processor.specialRegisters() }
        expect("KVM_SET_SREGS", code) { () throws(LinuxError) in
            try processor.setSpecialRegisters(kvm_sregs())
        }
        expect("KVM_SET_FPU", code) { () throws(LinuxError) in try processor.setFloatingPoint(kvm_fpu()) }
        expect("KVM_GET_LAPIC", code) { () throws(LinuxError) in _ = try processor.localAPIC() }
        expect("KVM_SET_LAPIC", code) { () throws(LinuxError) in try processor.setLocalAPIC(kvm_lapic_state())
        }
        expect("KVM_SET_MP_STATE", code) { () throws(LinuxError) in try processor.setRunnable() }
        expect("KVM_GET_MP_STATE", code) { () throws(LinuxError) in _ = try processor.multiprocessingState() }
        expect("KVM_GET_VCPU_EVENTS", code) { () throws(LinuxError) in _ = try processor.events() }
        expect("KVM_GET_MSRS", code) { () throws(LinuxError) in
            _ = try processor.modelSpecificRegister(0x10)
        }
        expect("KVM_TRANSLATE", code) { () throws(LinuxError) in _ = try processor.translate(0) }
        expect("KVM_GET_TSC_KHZ", code) { () throws(LinuxError) in _ = try processor.timestampFrequency() }
        expect("KVM_SET_CPUID2", code) { () throws(LinuxError) in try processor.setCPUID([kvm_cpuid_entry2()])
        }
        expect("KVM_SET_MSRS", code) { () throws(LinuxError) in try processor.setMSRs([(0x1A0, 1)]) }
        // What does not fit is refused before KVM is asked.
        expect("KVM_SET_CPUID2", ENOMEM) { () throws(LinuxError) in
            try processor.setCPUID([kvm_cpuid_entry2](repeating: kvm_cpuid_entry2(), count: 257))
        }
        expect("KVM_SET_MSRS", ENOMEM) { () throws(LinuxError) in
            try processor.setMSRs((0..<65).map { (UInt32($0), 0) })
        }
        processor.noteHostPause()
        let memory = try makeMemory(4096)
        #expect(processor.describeState(of: 3, memory) == "  (the state of vCPU 3 cannot be read)")
        #expect(processor.describeInterrupts().hasPrefix("  (interrupts cannot be read: KVM_GET_MP_STATE"))
        #expect(processor.describeStack(memory) == nil)
    }

    @Test func theSharedPageIsNeeded() throws {
        for kind in Kind.allCases {
            expect("KVM_GET_VCPU_MMAP_SIZE", EINVAL) { () throws(LinuxError) in
                let file = try OwnedDescriptor.memoryFile(named: "test")
                _ = try KVMProcessor(file, mappingSize: Int32(MemoryLayout<kvm_run>.size) - 1)
            }
            let code = kind == .closed ? EBADF : ENODEV
            let descriptor = try kind.descriptor()
            do {
                _ = try KVMProcessor(descriptor, mappingSize: 12288)
                Issue.record("mapped")
            } catch { #expect(error.operation == "mmap" && error.code == code) }
        }
    }

    @Test func openingWhatIsNoKVMSaysWhatToDo() throws {
        let directory = try TemporaryDirectory()
        func failure(_ path: String) -> HypervisorError? {
            do { _ = try KVMSystem(path: path) } catch { return error }
            return nil
        }
        let missing = directory.path("kvm")
        #expect(
            failure(missing) == .kvmUnavailable(LinuxError(operation: "open", code: ENOENT, subject: missing))
        )
        #expect(failure(missing)?.description.contains("Load kvm_intel or kvm_amd") == true)
        guard case .kvmUnavailable(let error)? = failure("/dev/null") else {
            Issue.record("/dev/null was taken for KVM")
            return
        }
        #expect(error.code == ENOTTY)
        let denied = HypervisorError.kvmUnavailable(
            LinuxError(operation: "open", code: EACCES, subject: "/dev/kvm"))
        #expect(denied.description.contains("usermod -aG kvm"))
    }
}
