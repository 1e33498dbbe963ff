import LinuxHost
import CLinux
internal import VMMProtocol

/// Whether write faults in guest memory can be caught by userfaultfd (Documentation/admin-guide/mm/userfaultfd.rst).
///
/// KVM's accesses are faults of the kernel, so the plain system call is of use only with privilege or with
/// `vm.unprivileged_userfaultfd`; since Linux 6.1 the device `/dev/userfaultfd` gives it to whom its file mode allows.
public struct UserfaultCheck: Sendable {
    /// What was tried, each 0 or an errno.
    public struct Facts: Equatable, Sendable {
        public var systemCall: Int32
        public var device: Int32
        /// `vm.unprivileged_userfaultfd`; nil if the kernel has no such setting.
        public var unprivileged: UInt64?

        public init(systemCall: Int32, device: Int32, unprivileged: UInt64?) {
            self.systemCall = systemCall
            self.device = device
            self.unprivileged = unprivileged
        }

        /// Tries both ways.
        public static func probe() -> Facts {
            let call = mingle_userfaultfd(Int32(O_CLOEXEC))
            if call >= 0 { _ = OwnedDescriptor(adopting: call) }
            let setting = SystemCall.text(of: "/proc/sys/vm/unprivileged_userfaultfd")
            return Facts(
                systemCall: call < 0 ? -call : 0, device: tryDevice(),
                unprivileged: setting.flatMap { UInt64($0.prefix { $0.isNumber }) })
        }

        private static func tryDevice() -> Int32 {
            switch SystemCall.open(devicePath, flags: O_RDWR) {
            case .failure(let error): return error.code
            case .success(let number):
                let device = OwnedDescriptor(adopting: number)
                let made = mingle_ioctl(device.number, MINGLE_USERFAULTFD_IOC_NEW, UInt(O_CLOEXEC))
                guard made >= 0 else { return -made }
                _ = OwnedDescriptor(adopting: made)
                return 0
            }
        }
    }

    /// Whether this process can have it, one way or the other.
    public static var isUsable: Bool {
        let facts = Facts.probe()
        return facts.device == 0 || facts.systemCall == 0
    }

    static let devicePath = "/dev/userfaultfd"
    /// What gives the device to those who may use KVM.
    public static let rule = #"KERNEL=="userfaultfd", GROUP="kvm", MODE="0660""#
    public static let ruleFile = "/etc/udev/rules.d/65-mingle-userfaultfd.rules"

    /// Judges the facts.
    public static func check(_ facts: Facts) -> HostCheck {
        let values: [(key: String, value: JSONValue)] = [
            ("device", .boolean(facts.device == 0)), ("system_call", .boolean(facts.systemCall == 0)),
            ("unprivileged", .optional(facts.unprivileged)),
        ]
        if facts.device == 0 {
            return HostCheck("host.userfaultfd", .ok, "\(devicePath) works", values: values)
        }
        if facts.systemCall == 0 {
            return HostCheck("host.userfaultfd", .ok, "the userfaultfd system call works", values: values)
        }
        let isThere = facts.device != ENOENT
        let reason =
            isThere ? "\(devicePath): \(LinuxError.message(facts.device))" : "\(devicePath) does not exist"
        return HostCheck(
            "host.userfaultfd", .warning, "not usable, vCPUs are paused instead when pages merge (\(reason))",
            remedy: isThere
                ? "put this line into \(ruleFile):\n\(rule)\n"
                    + "sudo udevadm control --reload && sudo udevadm trigger \(devicePath)"
                : "sudo sysctl vm.unprivileged_userfaultfd=1",
            values: values)
    }
}
