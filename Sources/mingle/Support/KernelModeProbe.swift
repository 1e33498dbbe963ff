import MingleSupport

/// Finds out whether guests' kernel mode runs in hardware: the only place that asks.
enum KernelModeProbe {
    static func run() -> KernelModeSupport {
        if SystemCall.exists("/sys/module/kvm_intel") || SystemCall.exists("/sys/module/kvm_amd") {
            return .hardware
        }
        return .unknown(reason: "neither kvm_intel nor kvm_amd is loaded")
    }
}
