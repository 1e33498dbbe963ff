import LinuxHost
import CLinux

/// The kinds of container that can be told apart.
public enum ContainerKind: String, Sendable {
    case docker, podman, lxc
    case systemdNspawn = "systemd-nspawn"
    case other

    /// How a device is passed into one.
    var deviceHint: String {
        switch self {
        case .docker: "docker run --device /dev/kvm ..."
        case .podman: "podman run --device /dev/kvm --group-add keep-groups ..."
        case .lxc: "lxc config device add NAME kvm unix-char path=/dev/kvm"
        case .systemdNspawn: "systemd-nspawn --bind=/dev/kvm --property=DeviceAllow='/dev/kvm rw' ..."
        case .other: "make /dev/kvm of the host visible and writable in it"
        }
    }

    /// Finds out whether we run in a container, from the marks that the runtimes leave below `root`.
    public static func detect(root: String = "", environment: String? = nil) -> ContainerKind? {
        if let text = SystemCall.text(of: root + "/run/systemd/container") ?? environment {
            let name = text.prefix { !$0.isWhitespace }
            return name.hasPrefix("lxc") ? .lxc : ContainerKind(rawValue: String(name)) ?? .other
        }
        if SystemCall.exists(root + "/run/.containerenv") { return .podman }
        if SystemCall.exists(root + "/.dockerenv") { return .docker }
        for line in (SystemCall.text(of: root + "/proc/1/cgroup") ?? "").split(separator: "\n") {
            if line.contains("docker") { return .docker }
            if line.contains("libpod") { return .podman }
            if line.contains("/lxc") { return .lxc }
            if line.contains("kubepods") { return .other }
        }
        return nil
    }

    /// The container that this process runs in, nil if none.
    public static func current() -> ContainerKind? { detect(environment: Environment.value("container")) }
}

/// What `/proc/cpuinfo` says of hardware virtualization.
struct ProcessorFacts: Equatable, Sendable {
    let hasVMX: Bool
    let hasSVM: Bool

    init(root: String = "") {
        let flags =
            (SystemCall.text(of: root + "/proc/cpuinfo") ?? "").split(separator: "\n")
            .first { $0.hasPrefix("flags") }?.split(separator: " ") ?? []
        hasVMX = flags.contains("vmx")
        hasSVM = flags.contains("svm")
    }

    /// The module for this processor, nil if it has no virtualization to offer.
    var virtualizationModule: String? { hasVMX ? "kvm_intel" : hasSVM ? "kvm_amd" : nil }
}

/// A kernel release such as `6.1.0-30-cloud-amd64`.
struct KernelRelease: Equatable, Sendable {
    let major: Int
    let minor: Int

    init?(_ text: String) {
        let numbers = text.split(separator: ".", maxSplits: 2, omittingEmptySubsequences: false)
        guard numbers.count >= 2, let major = Int(numbers[0]),
            let minor = Int(numbers[1].prefix { $0.isNumber })
        else { return nil }
        self.major = major
        self.minor = minor
    }

    func isAtLeast(_ major: Int, _ minor: Int) -> Bool { (self.major, self.minor) >= (major, minor) }
}
