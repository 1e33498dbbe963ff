import GuestMemory
import Hypervisor
import MingleSupport

/// Finds out whether guests' kernel mode runs in hardware: the only place that asks.
enum KernelModeProbe {
    static func run() -> KernelModeSupport {
        do throws(HypervisorError) {
            return try HostProbe.ring0().runsNatively ? .hardware : .emulated
        } catch {
            return .unknown(reason: "\(error)")
        }
    }

    /// What merging costs a guest here; nil where it cannot be measured.
    static func prices() -> MergingPrices? {
        do throws(HypervisorError) {
            let prices = try DisturbanceProbe.measure(KVMSystem())
            return MergingPrices(fault: prices.fault / 1000, call: prices.call / 1000)
        } catch { return nil }
    }

    /// Refuses a Linux guest where its kernel mode is emulated: it would say nothing for minutes, then die.
    /// - Parameter payloads: the option by which payloads are named instead.
    static func requireHardware(payloads: String) throws(SupportError) {
        for _ in 0..<refusals where run() != .emulated { return }
        throw .requirement(
            problem:
                "Linux does not come up here: this host's KVM emulates the kernel mode of guests in software",
            advice:
                "use a host with VT-x, AMD-V or nested virtualization (see 'mingle doctor'), run payloads "
                + "(\(payloads)), or Linux in the nested lab (scripts/with-linux of the source tree); --force tries it here"
        )
    }

    /// A host that is busy may look slow once.
    private static let refusals = 3
}
