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
            let prices = try DisturbanceProbe.measure()
            return MergingPrices(fault: prices.fault / 1000, call: prices.call / 1000)
        } catch { return nil }
    }
}
