import CLinux
internal import GuestMemory
internal import LinuxHost
internal import VMMProtocol

/// The system side of `/dev/kvm`: its version and capabilities. (Documentation/virt/kvm/api.rst, section 4.)
public struct KVMDevice: ~Copyable {
    /// The path of the device.
    public static let path = "/dev/kvm"
    /// The only version there is.
    public static let requiredVersion: Int32 = 12

    private let descriptor: OwnedDescriptor

    /// Opens the device; the error says what to do about it.
    public init(container: ContainerKind?) throws(SupportError) {
        switch SystemCall.open(Self.path, flags: O_RDWR) {
        case .success(let number): descriptor = OwnedDescriptor(adopting: number)
        case .failure(let error):
            throw .requirement(
                problem: "cannot open \(Self.path): \(LinuxError.message(error.code))",
                advice: Self.advice(code: error.code, container: container, processor: .init()))
        }
    }

    /// What to do when the device cannot be opened.
    static func advice(code: Int32, container: ContainerKind?, processor: ProcessorFacts) -> String {
        if let hint = ProcessLimit.hint(code) { return hint }
        if let container, code == ENOENT || code == EPERM || code == ENXIO {
            return "pass the device into the container: \(container.deviceHint)"
        }
        switch code {
        case ENOENT, ENODEV, ENXIO:
            guard let module = processor.virtualizationModule else {
                return
                    "the processor shows neither VT-x nor AMD-V: switch virtualization on in the firmware, or, "
                    + "inside a virtual machine, nested virtualization on its host; then: sudo modprobe kvm"
            }
            return "sudo modprobe \(module)"
        case EACCES, EPERM:
            return "sudo usermod -aG kvm \"$USER\", then log in again"
                + (container == nil ? "" : " (in a container: run it with the kvm group)")
        case EBUSY: return "another hypervisor uses the processor's virtualization: stop it"
        default: return "see the kernel's messages: sudo dmesg | grep -i kvm"
        }
    }

    /// The version of the interface, or a negative errno.
    public var version: Int32 { mingle_ioctl(descriptor.number, MINGLE_KVM_GET_API_VERSION, 0) }

    /// The value of a capability: 0 if it is not there.
    public func capability(_ number: Int32) -> Int {
        max(0, Int(mingle_ioctl(descriptor.number, MINGLE_KVM_CHECK_EXTENSION, UInt(number))))
    }

    /// A capability with the name that the KVM documentation gives it.
    struct Capability: Sendable {
        let name: String
        let number: Int32
    }

    /// Without these no guest runs.
    static let required: [Capability] = [
        .init(name: "USER_MEMORY", number: KVM_CAP_USER_MEMORY),
        .init(name: "IRQCHIP", number: KVM_CAP_IRQCHIP),
        .init(name: "SET_TSS_ADDR", number: KVM_CAP_SET_TSS_ADDR),
        .init(name: "EXT_CPUID", number: KVM_CAP_EXT_CPUID),
        .init(name: "MP_STATE", number: KVM_CAP_MP_STATE),
        .init(name: "SYNC_MMU", number: KVM_CAP_SYNC_MMU),
        .init(name: "IMMEDIATE_EXIT", number: KVM_CAP_IMMEDIATE_EXIT),
    ]
    /// Without these Linux guests miss something.
    static let wanted: [Capability] = [
        .init(name: "PIT2", number: KVM_CAP_PIT2), .init(name: "IRQFD", number: KVM_CAP_IRQFD),
        .init(name: "IOEVENTFD", number: KVM_CAP_IOEVENTFD),
        .init(name: "GET_TSC_KHZ", number: KVM_CAP_GET_TSC_KHZ),
        .init(name: "KVMCLOCK_CTRL", number: KVM_CAP_KVMCLOCK_CTRL),
    ]

    /// The checks of the device: its version, capabilities and dirty logs.
    public func checks() -> [HostCheck] { [versionCheck(), capabilityCheck(), dirtyLogCheck()] }

    private func versionCheck() -> HostCheck {
        let version = version
        let values: [(key: String, value: JSONValue)] = [("version", .integer(Int64(version)))]
        guard version == Self.requiredVersion else {
            return HostCheck(
                "kvm.version", .problem, "KVM answers with version \(version), not \(Self.requiredVersion)",
                remedy: "run a Linux kernel with its own KVM module", values: values)
        }
        return HostCheck("kvm.version", .ok, "KVM API version \(version)", values: values)
    }

    private func capabilityCheck() -> HostCheck {
        var values = (Self.required + Self.wanted).map { (key: $0.name, value: JSONValue.boolean(has($0))) }
        let cpus = capability(KVM_CAP_MAX_VCPUS)
        let slots = capability(KVM_CAP_NR_MEMSLOTS)
        values.append(("MAX_VCPUS", .integer(Int64(cpus))))
        values.append(("NR_MEMSLOTS", .integer(Int64(slots))))
        let missing = Self.required.filter { !has($0) }.map(\.name)
        if !missing.isEmpty {
            return HostCheck(
                "kvm.capabilities", .problem, "missing: " + missing.joined(separator: ", "),
                remedy: "update the host's kernel", values: values)
        }
        let lacking = Self.wanted.filter { !has($0) }.map(\.name)
        let summary = "up to \(cpus) vCPUs and \(slots) memory slots a guest"
        if !lacking.isEmpty {
            return HostCheck(
                "kvm.capabilities", .warning, summary + "; missing: " + lacking.joined(separator: ", "),
                remedy: "update the host's kernel", values: values)
        }
        return HostCheck("kvm.capabilities", .ok, summary, values: values)
    }

    private func dirtyLogCheck() -> HostCheck {
        let manual = capability(KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2)
        let ring = capability(KVM_CAP_DIRTY_LOG_RING)
        let values: [(key: String, value: JSONValue)] = [
            ("bitmap", .boolean(true)), ("manual_protect", .boolean(manual > 0)),
            ("initially_all_set", .boolean(manual & 2 != 0)), ("ring_bytes", .integer(Int64(ring))),
        ]
        let modes = ["bitmap"] + (manual > 0 ? ["manual protect"] : []) + (ring > 0 ? ["ring"] : [])
        return HostCheck(
            "kvm.dirty-log", manual > 0 ? .ok : .warning, modes.joined(separator: ", "),
            remedy: manual > 0
                ? nil : "update the host's kernel: without manual protect every harvest costs more",
            values: values)
    }

    private func has(_ capability: Capability) -> Bool { self.capability(capability.number) > 0 }
}
