internal import CLinux
internal import GuestMemory
public import LinuxHost
internal import Glibc

/// /dev/kvm: the system ioctls (Documentation/virt/kvm/api.rst, "System ioctls").
public final class KVMSystem: Sendable {
    let descriptor: OwnedDescriptor

    /// Opens /dev/kvm and checks the API version and every capability that is always used.
    public init(path: String = "/dev/kvm") throws(HypervisorError) {
        do throws(LinuxError) {
            descriptor = try .open(path, flags: O_RDWR)
        } catch { throw .kvmUnavailable(error) }
        let version: Int32
        do throws(LinuxError) { version = try apiVersion() } catch {
            // Some other file.
            throw .kvmUnavailable(LinuxError(operation: error.operation, code: error.code, subject: path))
        }
        guard version == 12 else { throw .unsupportedVersion(version) }
        for capability in KVMCapability.required where checkExtension(capability) == 0 {
            throw .missingCapability(capability.name)
        }
    }

    /// For tests: any descriptor in place of /dev/kvm, nothing checked.
    init(unchecked descriptor: consuming OwnedDescriptor) { self.descriptor = descriptor }

    /// KVM_GET_API_VERSION: 12 on every supported kernel.
    public func apiVersion() throws(LinuxError) -> Int32 {
        try checked(mingle_ioctl(descriptor.number, MINGLE_KVM_GET_API_VERSION, 0), "KVM_GET_API_VERSION")
    }

    /// KVM_CHECK_EXTENSION: 0 when absent, else 1 or a number that the capability defines.
    public func checkExtension(_ capability: KVMCapability) -> Int32 {
        max(0, mingle_ioctl(descriptor.number, MINGLE_KVM_CHECK_EXTENSION, capability.number))
    }

    /// KVM_GET_VCPU_MMAP_SIZE: bytes that a vCPU shares with us.
    func processorMappingSize() throws(LinuxError) -> Int32 {
        try checked(
            mingle_ioctl(descriptor.number, MINGLE_KVM_GET_VCPU_MMAP_SIZE, 0), "KVM_GET_VCPU_MMAP_SIZE")
    }

    /// KVM_GET_SUPPORTED_CPUID: what KVM can offer a guest.
    func supportedCPUID() throws(LinuxError) -> [kvm_cpuid_entry2] {
        guard let table = unsafe mingle_cpuid_create() else {
            throw LinuxError(operation: "KVM_GET_SUPPORTED_CPUID", code: ENOMEM)
        }
        // SAFETY: the table has room for the number of entries it announces, and KVM fills at most that many.
        defer { unsafe free(table) }
        try checked(
            unsafe mingle_ioctl_pointer(descriptor.number, MINGLE_KVM_GET_SUPPORTED_CPUID, table),
            "KVM_GET_SUPPORTED_CPUID")
        let count = min(Int(unsafe table.pointee.nent), Int(MINGLE_CPUID_MAX))
        return (0..<count).map { unsafe mingle_cpuid_entries(table)[$0] }
    }

    /// KVM_CREATE_VM.
    func createMachine() throws(LinuxError) -> KVMMachine {
        while true {
            let result = mingle_ioctl(descriptor.number, MINGLE_KVM_CREATE_VM, 0)
            // Creating a VM may be interrupted by a signal; nothing was made then.
            if result == -EINTR { continue }
            let fd = try checked(result, "KVM_CREATE_VM")
            return KVMMachine(OwnedDescriptor(adopting: fd), processorMappingSize: try processorMappingSize())
        }
    }
}
