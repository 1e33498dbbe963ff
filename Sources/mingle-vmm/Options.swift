import GuestMemory
import Hypervisor
import ImageFormats
import Sharing
import VMMProtocol

/// What the command line says, in this program's terms.
struct Options {
    let invocation: VMMInvocation
    let configuration: VirtualMachineConfiguration
    let sharing: SharingOptions

    var serial: SerialDestination { invocation.serial }
    var endOfFileToGuest: Bool { invocation.sendsEndOfFile }
    /// Seconds after which the guest is stopped; 0 is never.
    var timeout: Double { invocation.timeoutSeconds ?? 0 }
    /// Seconds between the power button and the end by force.
    var grace: Double { invocation.graceSeconds ?? 5 }
    var logLevel: LogLevel { invocation.logLevel }
    var stateDirectory: String? { invocation.stateDirectory }
    var reportPath: String? { invocation.report }
    var imageLabel: String { invocation.image ?? "" }
    var controlPath: String? { invocation.control }
    var diesWithParent: Bool { invocation.diesWithParent }
    var overcommits: Bool { invocation.overcommits }
    var admission: Int32? { invocation.admission }
    var hasEntropy: Bool { invocation.hasEntropy }
    var isConfined: Bool { invocation.confines }

    struct SharingOptions {
        var isOn: Bool
        /// Nothing is merged before the command `sharing on`.
        var waits: Bool
        /// nil: of this guest alone.
        var domain: String?
        /// Percent of one CPU.
        var cpuPercent: Double
        var window: SharingChoice.Window
        /// The broker's socket; without one, only zero pages are shared.
        var brokerPath: String?
        var tracePath: String?
        #if DEBUG
            /// What is to go wrong.
            var injection: FaultInjection?
        #endif

        fileprivate init(_ choice: SharingChoice) {
            isOn = choice.mode == .builtin
            waits = choice.waits
            domain = choice.domain
            cpuPercent = choice.cpuPercent ?? 10
            window = choice.window
            brokerPath = choice.broker
            tracePath = choice.traceFile
        }
    }

    init(_ words: [String]) throws(UsageError) {
        invocation = try VMMInvocation(arguments: words)
        var sharing = SharingOptions(invocation.sharing)
        #if DEBUG
            if let faults = invocation.injection {
                guard let injection = FaultInjection(faults) else {
                    throw UsageError("--inject \(faults): see FaultInjection.swift")
                }
                sharing.injection = injection
            }
        #endif
        self.sharing = sharing
        var configuration = VirtualMachineConfiguration()
        configuration.name = invocation.name
        configuration.memorySizeInBytes = invocation.memoryBytes
        configuration.processorCount = invocation.cpuCount
        configuration.kernelPath = invocation.kernel
        configuration.bootProtocol = invocation.boot
        configuration.initrdPaths = invocation.initrds
        configuration.commandLine = invocation.commandLine ?? ""
        configuration.payload.arguments = invocation.payloadArguments ?? ""
        configuration.payload.guestIndex = invocation.guestIndex ?? configuration.payload.guestIndex
        configuration.payload.seed = invocation.seed ?? configuration.payload.seed
        configuration.memoryBacking = invocation.ram ?? .memoryFile
        configuration.dirtyLog = invocation.dirtyLog ?? .off
        configuration.kvmPath = invocation.kvm ?? configuration.kvmPath
        if sharing.isOn {
            configuration.dirtyLog = .manual
            configuration.beginsDirtyLogLater = true
        }
        self.configuration = configuration
    }
}
