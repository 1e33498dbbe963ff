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
}
