public import GuestMemory
public import LinuxHost

/// Why a machine cannot be built or run; the text is for whoever started it.
public enum HypervisorError: Error, Equatable, Sendable, CustomStringConvertible {
    /// /dev/kvm cannot be opened.
    case kvmUnavailable(LinuxError)
    /// The kernel speaks another KVM API than the stable one (12).
    case unsupportedVersion(Int32)
    /// KVM lacks something that is needed.
    case missingCapability(String)
    /// A request to KVM failed, or another system call.
    case system(LinuxError)
    /// Guest memory could not be made or reached.
    case memory(GuestMemoryError)
    /// The configuration cannot work: what is wrong and what to do.
    case invalidConfiguration(String)
    /// A kernel, initrd or payload cannot be loaded: which, and why.
    case badImage(String)

    public var description: String {
        switch self {
        case .kvmUnavailable(let error):
            "cannot use \(error.subject.isEmpty ? "/dev/kvm" : error.subject): \(LinuxError.message(error.code)). "
                + (ProcessLimit.hint(error.code)
                    ?? (error.code == 13
                        ? "Join the group that owns it (sudo usermod -aG kvm $USER, then log in again)."
                        : "Load kvm_intel or kvm_amd, enable virtualisation in the firmware, or pass --device /dev/kvm to the container."))
        case .unsupportedVersion(let version):
            "KVM API version is \(version), but 12 is needed: use Linux 6.1 or later"
        case .missingCapability(let name): "KVM on this host lacks \(name): use Linux 6.1 or later on x86-64"
        case .system(let error): error.description
        case .memory(let error): error.description
        case .invalidConfiguration(let text): text
        case .badImage(let text): text
        }
    }
}

/// Runs a body that throws a `LinuxError` and says it in this module's terms.
func hypervisorSystem<Result: ~Copyable>(
    _ body: () throws(LinuxError) -> Result
) throws(HypervisorError) -> Result {
    do { return try body() } catch { throw .system(error) }
}

/// Runs a body that throws a `GuestMemoryError` and says it in this module's terms.
func memoryAccess<Result>(
    _ body: () throws(GuestMemoryError) -> Result
) throws(HypervisorError) -> Result {
    do { return try body() } catch { throw .memory(error) }
}
