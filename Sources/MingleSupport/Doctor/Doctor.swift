internal import Confinement
internal import VMMProtocol

/// Puts the report of `mingle doctor` together.
public struct Doctor: Sendable {
    private let container: ContainerKind?
    private let host: HostChecks
    private let userfault: UserfaultCheck.Facts

    public init() {
        container = ContainerKind.current()
        host = HostChecks(container: container)
        userfault = UserfaultCheck.Facts.probe()
    }

    /// Runs all checks in the order in which they are shown. `kernelMode` and `prices` are called if KVM is usable;
    /// `state` and `program` say whether the state directory and `mingle-vmm` are.
    public func report(
        kernelMode: () -> KernelModeSupport, prices: () -> MergingPrices? = { nil }, state: StateDirectory,
        program: Result<String, SupportError>
    ) -> DoctorReport {
        var checks = [host.kernel(), host.processor(), host.containerCheck()]
        let device = kvm()
        checks += device.checks
        var mode = KernelModeSupport.unknown(reason: "KVM is not usable")
        if device.isUsable {
            mode = kernelMode()
            checks.append(Self.check(mode))
            if let prices = prices() { checks.append(prices.check) }
        }
        checks += [
            ConfinementCheck.check(.ofHost), UserfaultCheck.check(userfault), host.mapCount(), host.limits(),
            host.memory(),
            host.samePageMerging(), host.hugePages(), Self.brokerCheck(state), Self.check(state),
            Self.check(program),
        ]
        return DoctorReport(checks: checks, kernelMode: mode)
    }

    private func kvm() -> (checks: [HostCheck], isUsable: Bool) {
        do throws(SupportError) {
            let device = try KVMDevice(container: container)
            let checks = device.checks()
            let opened = HostCheck(
                "kvm.device", .ok, "\(KVMDevice.path) can be opened for reading and writing")
            return ([opened] + checks, !checks.contains { $0.status == .problem })
        } catch {
            guard case .requirement(let problem, let advice) = error else {
                return ([HostCheck("kvm.device", .problem, error.description)], false)
            }
            return ([HostCheck("kvm.device", .problem, problem, remedy: advice)], false)
        }
    }

    static func check(_ mode: KernelModeSupport) -> HostCheck {
        switch mode {
        case .hardware:
            return HostCheck(
                "kvm.kernel-mode", .ok, "guests' kernel mode runs in hardware",
                values: [("mode", .string("hardware"))])
        case .emulated:
            return HostCheck(
                "kvm.kernel-mode", .warning,
                "guests' kernel mode is emulated in software: payloads run at full speed, Linux does not come up",
                remedy:
                    "run Linux guests on a host with VT-x or AMD-V (or nested virtualization), or in the lab",
                values: [("mode", .string("emulated"))])
        case .unknown(let reason):
            return HostCheck(
                "kvm.kernel-mode", .warning,
                "whether guests' kernel mode runs in hardware is not known: \(reason)",
                remedy: "try it: mingle run --timeout 60 -- true",
                values: [("mode", .string("unknown"))])
        }
    }

    static func check(_ state: StateDirectory) -> HostCheck {
        let values: [(key: String, value: JSONValue)] = [("path", .string(state.path))]
        do throws(SupportError) {
            try state.prepare()
            return HostCheck("mingle.state-directory", .ok, state.path, values: values)
        } catch {
            return HostCheck("mingle.state-directory", .problem, error.description, values: values)
        }
    }

    static func check(_ program: Result<String, SupportError>) -> HostCheck {
        switch program {
        case .success(let path): HostCheck("mingle.vmm", .ok, path, values: [("path", .string(path))])
        case .failure(.requirement(let problem, let advice)):
            HostCheck("mingle.vmm", .problem, problem, remedy: advice, values: [("path", .null)])
        case .failure(let error):
            HostCheck("mingle.vmm", .problem, error.description, values: [("path", .null)])
        }
    }
}

/// What a guest of this host pays for being merged; microseconds.
public struct MergingPrices: Sendable {
    private let fault: Double
    private let call: Double

    /// - Parameters:
    ///   - fault: for the first write to a page that is watched.
    ///   - call: for a vCPU that has to leave the guest because its memory is remapped.
    public init(fault: Double, call: Double) {
        self.fault = fault
        self.call = call
    }

    /// As `mingle doctor` shows them.
    var check: HostCheck {
        func text(_ value: Double) -> String { "\((value * 10).rounded() / 10) µs" }
        return HostCheck(
            "kvm.prices", .ok,
            "a guest at work pays \(text(fault)) for a page that is watched, \(text(call)) for a remap; merging keeps to 2 % of its time",
            values: [("fault_us", .decimal(fault)), ("call_us", .decimal(call))])
    }
}
