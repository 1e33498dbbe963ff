import LinuxHost
import CLinux
internal import VMMProtocol

/// Whether write faults in guest memory can be caught by userfaultfd, as a VMM finds out: ``UserfaultSource``.
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

        /// Tries both ways, for just what a VMM asks for.
        public static func probe() -> Facts {
            let setting = SystemCall.text(of: "/proc/sys/vm/unprivileged_userfaultfd")
            return Facts(
                systemCall: outcome(.systemCall), device: outcome(.device),
                unprivileged: setting.flatMap { UInt64($0.prefix { $0.isNumber }) })
        }

        private static func outcome(_ source: UserfaultSource) -> Int32 {
            do throws(LinuxError) { _ = try source.protecting() } catch { return error.code }
            return 0
        }
    }

    /// Whether this process can have it, one way or the other.
    public static var isUsable: Bool {
        let facts = Facts.probe()
        return facts.device == 0 || facts.systemCall == 0
    }

    /// What gives the device to those who may use KVM.
    public static let rule = #"KERNEL=="userfaultfd", GROUP="kvm", MODE="0660""#
    public static let ruleFile = "/etc/udev/rules.d/65-mingle-userfaultfd.rules"

    private static let fallback = "not usable, vCPUs are paused instead when pages merge"

    /// Judges the facts.
    public static func check(_ facts: Facts) -> HostCheck {
        let values: [(key: String, value: JSONValue)] = [
            ("device", .boolean(facts.device == 0)), ("system_call", .boolean(facts.systemCall == 0)),
            ("unprivileged", .optional(facts.unprivileged)),
        ]
        if facts.device == 0 {
            return HostCheck("host.userfaultfd", .ok, "\(UserfaultSource.devicePath) works", values: values)
        }
        if facts.systemCall == 0 {
            return HostCheck("host.userfaultfd", .ok, "the userfaultfd system call works", values: values)
        }
        // Whatever a user is allowed: the kernel has one, and it does not do what it is for.
        guard facts.device != EINVAL, facts.systemCall != EINVAL else {
            return HostCheck(
                "host.userfaultfd", .warning,
                fallback + " (this kernel cannot protect shared memory)",
                remedy: "use Linux 5.19 or later", values: values)
        }
        let isThere = facts.device != ENOENT
        let reason =
            isThere
            ? "\(UserfaultSource.devicePath): \(LinuxError.message(facts.device))"
            : "\(UserfaultSource.devicePath) does not exist"
        return HostCheck(
            "host.userfaultfd", .warning, fallback + " (\(reason))",
            remedy: isThere
                ? "put this line into \(ruleFile):\n\(rule)\n"
                    + "sudo udevadm control --reload && sudo udevadm trigger \(UserfaultSource.devicePath)"
                : "sudo sysctl vm.unprivileged_userfaultfd=1",
            values: values)
    }
}
