import MingleSupport
import VMMProtocol

/// Turns the options of `mingle density` into a plan: finds the image, checks what can be checked.
struct DensityPreparation {
    private let command: DensityCommand
    private let images: ImageProvider
    private let console: Console

    init(command: DensityCommand) {
        self.command = command
        console = command.log.console
        images = ImageProvider(console: command.log.console)
    }

    func plan() throws(SupportError) -> DensityPlan {
        _ = try KVMDevice(container: .current())
        let checks = RunChecks(processorCount: HostProcessors.count)
        let kernelMode = KernelModeProbe.run()
        let (label, template, isPayload) = try template(kernelMode)
        try warn(checks.cpus(command.cpus))
        try RunChecks.memory(command.memory.bytes, isPayload: isPayload)
        var plan = DensityPlan(template: template, image: label)
        plan.guests = command.guests
        plan.checksItself = label == "payload:fill"
        plan.mode = command.sharing
        plan.seconds = command.duration.count
        plan.domain = command.domain
        plan.cpuPercent = command.tuning.shareCpu
        plan.window = command.tuning.window
        plan.verifies = command.verify
        plan.sharesWhenUp = command.shareWhenUp
        plan.typed = try command.type.map { line throws(SupportError) in try Self.oneLine(line) }
        plan.data = try command.data.map { text throws(SupportError) in
            guard !isPayload else {
                throw .requirement(problem: "--data is for Linux guests", advice: "use --arguments")
            }
            return try DensityPlan.GuestData(text)
        }
        plan.hasBaseline = !command.noBaseline
        plan.hostFacts = HostDescription.json(
            kernelMode: kernelMode, window: UserfaultCheck.isUsable ? .userfaultfd : .pause)
        plan.overcommits = command.overcommit.isAllowed
        try plan.check()
        return plan
    }

    private static func oneLine(_ text: String) throws(SupportError) -> String {
        guard text.utf8.count <= 1024, !text.contains(where: \.isNewline) else {
            throw .requirement(problem: "--type takes one line", advice: "leave out what follows it")
        }
        return text
    }

    private func warn(_ warnings: [String]) { for warning in warnings { console.log(.warning, warning) } }

    private func template(_ kernelMode: KernelModeSupport) throws(SupportError) -> (
        label: String, VMMInvocation, isPayload: Bool
    ) {
        func checkKernelMode() throws(SupportError) {
            guard kernelMode == .emulated, !command.force.isForced else { return }
            try KernelModeProbe.requireHardware(payloads: "--image payload:NAME")
        }
        func invocation(_ path: String) -> VMMInvocation {
            var result = VMMInvocation(
                name: "", memoryBytes: command.memory.bytes, cpuCount: command.cpus, kernel: path)
            result.logLevel = command.log.logLevel
            return result
        }
        if command.image == "linux" {
            try checkKernelMode()
            let kernel = try images.debianKernel(.vmlinux)
            return (kernel.label, try linux(invocation(kernel.path), kernel), false)
        }
        let label: String
        let path: String
        switch try KernelChoice(command.image) {
        case .debian: throw .requirement(problem: "there is no image 'debian'", advice: "use --image linux")
        case .payload(let name): (label, path) = ("payload:\(name)", try images.payload(name))
        case .file(let file):
            try RunChecks.kernelFile(file)
            (label, path) = (String(file.split(separator: "/").last ?? "kernel"), file)
        }
        var result = invocation(path)
        guard try KernelFile(path: path).kind == .payload else {
            try checkKernelMode()
            return (label, try linux(result, nil), false)
        }
        result.payloadArguments = try command.arguments.map { text throws(SupportError) in
            try PayloadArguments.join([text])
        }
        return (label, result, true)
    }

    /// Linux with our initial RAM disk, idle until its power button is pressed.
    private func linux(_ start: VMMInvocation, _ kernel: ImageProvider.BootableKernel?) throws(SupportError)
        -> VMMInvocation
    {
        guard command.arguments == nil else {
            throw .requirement(problem: "--arguments are for payloads", advice: "leave them out")
        }
        var result = start
        result.initrds = [try images.initramfs(for: kernel)]
        result.commandLine = try KernelCommandLine.assemble(bare: false, image: ["mingle.hold"], user: [])
        return result
    }
}
