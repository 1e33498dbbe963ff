import LinuxHost
import MingleSupport
import VMMProtocol

/// Turns the options of `mingle run` into the arguments of `mingle-vmm`, in the order in which a reader would check
/// them: machine, kernel, KVM, registration, RAM disk, command line.
struct GuestPreparation {
    private let command: RunCommand
    private let images: ImageProvider
    private let console: Console
    private let checks = RunChecks(processorCount: HostProcessors.count)

    init(command: RunCommand) {
        self.command = command
        console = command.log.console
        images = ImageProvider(console: command.log.console)
    }

    /// A kernel that was found.
    struct Kernel {
        let path: String
        /// What `mingle ps` shows.
        let label: String
        let file: KernelFile
        /// The Debian kernel, if it is one.
        let debian: ImageProvider.BootableKernel?

        var isPayload: Bool { file.kind == .payload }
    }

    /// Checks everything and gives the arguments; nothing of the host was changed but caches and the state directory.
    func invocation() throws(SupportError) -> VMMInvocation {
        let guest = command.guest
        try warn(checks.cpus(guest.cpus))
        try RunChecks.limits(
            memory: guest.memory.bytes, cpus: guest.cpus, shares: command.sharing.mode == .builtin)
        // Before a kernel is fetched that could not run.
        let isDebian = try KernelChoice(command.boot.kernel) == .debian
        if isDebian { try checkHost(isPayload: false) }
        let kernel = try kernel()
        try RunChecks.memory(guest.memory.bytes, isPayload: kernel.isPayload)
        try kernel.file.check(boot: command.boot.boot, path: kernel.path)
        if !isDebian { try checkHost(isPayload: kernel.isPayload) }
        let state = StateDirectory.current()
        try state.prepare()
        let name: String
        if let given = guest.name { name = given } else { name = try unusedName(in: state) }
        try checkUnused(name, in: state)

        var result = VMMInvocation(
            name: name, memoryBytes: guest.memory.bytes, cpuCount: guest.cpus, kernel: kernel.path)
        result.boot = command.boot.boot
        result.image = kernel.label
        result.stateDirectory = state.path
        result.guestIndex = guest.guestIndex
        result.seed = guest.seed
        try addRunning(to: &result)
        result.control = try SocketPath.checked(state.controlPath + "/" + name)
        if kernel.isPayload {
            try addPayload(to: &result, kernel: kernel)
        } else {
            try addLinux(to: &result, kernel: kernel)
        }
        try checkOutputs(of: result)
        let lock = try AdmissionLock.take(in: state)
        try checkAdmission(of: &result, in: state)
        // Last: a broker waits for its first guest only for a moment.
        try addSharing(to: &result, state: state)
        // Only now, so that a broker which was started does not inherit it.
        result.admission = try lock.passOn()
        return result
    }

    /// Refuses what cannot run on this host, whatever memory it has.
    private func checkHost(isPayload: Bool) throws(SupportError) {
        _ = try KVMDevice(container: .current())
        guard !isPayload, !command.boot.force.isForced else { return }
        try KernelModeProbe.requireHardware(payloads: "--kernel payload:NAME")
    }

    /// Refuses a guest whose worst case does not fit beside that of those that run.
    private func checkAdmission(of result: inout VMMInvocation, in state: StateDirectory) throws(SupportError)
    {
        result.overcommits = command.guest.overcommit.isAllowed
        result.confines = command.guest.confine == .on
        let warning = try Admission(registry: GuestRegistry(directory: state))
            .check(guests: 1, memoryBytes: result.memoryBytes, overcommits: result.overcommits)
        if let warning { console.log(.warning, warning) }
    }

    private func addSharing(to result: inout VMMInvocation, state: StateDirectory) throws(SupportError) {
        let options = command.sharing
        result.sharing.mode = options.mode
        guard options.mode == .builtin else { return }
        result.sharing.domain = options.domain
        result.sharing.cpuPercent = options.tuning.shareCpu
        result.sharing.window = options.tuning.window
        result.sharing.traceFile = options.traceShare
        do throws(SupportError) {
            // Whether or not it answers now: the guest joins when it does.
            let socket = try SocketPath.checked(BrokerService.socket(state))
            result.sharing.broker = socket
            try BrokerService.ensureRunning(in: state, busyMilliseconds: 2_000)
            if let report = try BrokerReport.read(socket: socket),
                let warning = BrokerService.warning(of: report)
            {
                console.log(.warning, warning)
            }
        } catch {
            let later = result.sharing.broker == nil ? "" : " until there is one"
            console.log(
                .warning, "no frame broker, so that only pages of zeros are shared\(later): \(error)")
        }
    }

    private func warn(_ warnings: [String]) { for warning in warnings { console.log(.warning, warning) } }

    private func kernel() throws(SupportError) -> Kernel {
        let format = command.boot.format
        switch try KernelChoice(command.boot.kernel) {
        case .debian:
            let debian = try images.debianKernel(format ?? .vmlinux)
            return Kernel(
                path: debian.path, label: debian.label, file: try KernelFile(path: debian.path),
                debian: debian)
        case .payload(let name):
            let path = try images.payload(name)
            return Kernel(path: path, label: "payload:\(name)", file: try KernelFile(path: path), debian: nil)
        case .file(let file):
            try RunChecks.kernelFile(file)
            let path = format == .decompressed ? try images.decompressed(file) : file
            let label = String(file.split(separator: "/").last ?? "kernel")
            return Kernel(path: path, label: label, file: try KernelFile(path: path), debian: nil)
        }
    }

    /// A name of our process's number, which a process of another PID namespace may have taken.
    private func unusedName(in state: StateDirectory) throws(SupportError) -> String {
        let standard = GuestName.standard(process: Console.process)
        let registry = GuestRegistry(directory: state)
        for number in 2...100 {
            let name = number == 2 ? standard : "\(standard)-\(number - 1)"
            if try registry.probe(name) == .absent { return name }
        }
        return standard
    }

    private func checkUnused(_ name: String, in state: StateDirectory) throws(SupportError) {
        let registry = GuestRegistry(directory: state)
        switch try registry.probe(name) {
        case .absent: return
        case .unreadable(let record):
            throw .requirement(
                problem: "the name '\(name)' is taken: \(record)", advice: "or choose another --name")
        case .running(let record):
            throw .requirement(
                problem:
                    "a guest called '\(name)' runs already (process \(registry.localProcess(of: record).map(String.init) ?? "elsewhere"))",
                advice: "choose another --name, or end it with 'mingle stop \(name)'")
        }
    }

    private func addRunning(to result: inout VMMInvocation) throws(SupportError) {
        let running = command.running
        result.serial = try SerialDestination.checked(running.serial)
        result.timeoutSeconds = running.timeout.map { Double($0.count) }
        result.graceSeconds = Double(running.grace)
        result.logLevel = command.log.logLevel
        result.dirtyLog = running.dirtyLog
        result.report = running.report
    }

    /// Refuses files for output that are inputs, or one another.
    private func checkOutputs(of invocation: VMMInvocation) throws(SupportError) {
        var outputs: [(option: String, path: String)] = []
        if case .file(let path) = invocation.serial { outputs.append(("--serial", path)) }
        if let path = command.sharing.traceShare { outputs.append(("--trace-share", path)) }
        if let path = invocation.report { outputs.append(("--report", path)) }
        let inputs =
            invocation.initrds.map { ("an initial RAM disk", $0) }
            + [
                ("the kernel", invocation.kernel), ("the program mingle", "/proc/self/exe"),
                ("the program mingle-vmm", try VMMProgram.path()),
            ]
        try RunChecks.outputs(outputs, inputs: inputs)
    }

    private func addPayload(to result: inout VMMInvocation, kernel: Kernel) throws(SupportError) {
        do { try command.boot.checkPayload(what: kernel.path) } catch {
            throw .requirement(problem: "wrong options for a payload", advice: "\(error)")
        }
        try checks.fits(
            memory: result.memoryBytes, kernelBytes: kernel.file.footprintBytes, initrdBytes: 0)
        result.payloadArguments =
            command.words.isEmpty ? nil : try PayloadArguments.join(bytes: command.words)
    }

    private func addLinux(to result: inout VMMInvocation, kernel: Kernel) throws(SupportError) {
        var words = command.words
        let options = command.boot
        result.hasEntropy = true
        var image: [String] = []
        var usesOwnInitramfs = false
        if options.initrd.isEmpty && !options.noInitrd && (kernel.debian != nil || !words.isEmpty) {
            result.initrds.append(try images.initramfs(for: kernel.debian))
            usesOwnInitramfs = true
        }
        if usesOwnInitramfs && words.isEmpty && result.serial == .standardStreams && !Console.isTerminal(0) {
            // Nobody sits there: what comes is a script, not keys for an interactive shell.
            words = ["sh", "/dev/stdin"].map { Array($0.utf8) }
        }
        result.initrds += options.initrd
        var initrdBytes: UInt64 = 0
        for path in result.initrds { initrdBytes += try RunChecks.readableFile(path, what: "the initrd") }
        if !words.isEmpty {
            guard !options.noInitrd else {
                throw .requirement(
                    problem: "a command is run by an initial RAM disk", advice: "leave --no-initrd out")
            }
            if !usesOwnInitramfs {
                console.log(.warning, "the command is run only if the initrd holds Mingle's init")
            }
            let overlay = try images.commandOverlay(words)
            initrdBytes += UInt64(overlay.count)
            result.initrds.append(try VMMProgram.inherited(AnonymousFile.make("command", holding: overlay)))
        }
        try checks.fits(
            memory: result.memoryBytes, kernelBytes: kernel.file.footprintBytes, initrdBytes: initrdBytes)
        if usesOwnInitramfs { image = guestWords(name: result.name) }
        // What the kernel unpacks may end before the command: init then knows that it is missing.
        if !words.isEmpty { image.append("mingle.command") }
        if options.bareCmdline { image = [] }
        // Whoever names another first process speaks with that.
        let isOurInit = usesOwnInitramfs && options.cmdline?.contains("rdinit=") != true
        result.sendsEndOfFile = isOurInit && result.serial == .standardStreams && !Console.isTerminal(0)
        result.commandLine = try KernelCommandLine.assemble(
            bare: options.bareCmdline, image: image, user: options.cmdline.map { [$0] } ?? [])
    }

    /// What our initramfs understands: the host name, and the type of the terminal, which Linux passes on to init as
    /// an environment variable.
    private func guestWords(name: String) -> [String] {
        var words = ["mingle.name=\(name)"]
        if Console.isTerminal(1), let type = Environment.value("TERM"),
            type.utf8.allSatisfy({
                $0 > 0x20 && $0 < 0x7f && $0 != UInt8(ascii: "\"") && $0 != UInt8(ascii: ".")
            })
        {
            words.append("TERM=\(type)")
        }
        return words
    }
}
