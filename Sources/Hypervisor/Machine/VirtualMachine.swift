public import GuestMemory
public import LinuxHost
internal import CLinux
internal import Synchronization
internal import Glibc

/// What a guest tells its host while it lives. Called on vCPU threads: must not block.
public struct GuestObserver: Sendable {
    /// The guest wrote a number to the doorbell port.
    public var doorbell: @Sendable (_ number: UInt32, _ processor: Int) -> Void = { _, _ in }
    /// Bytes began to wait in the serial line (`serial.takeOutput`).
    public var serialOutput: @Sendable () -> Void = {}
    /// The serial line was full of input and has room again (`Serial16550.inputChunk` bytes).
    public var serialInput: @Sendable () -> Void = {}
    /// The guest has come to its end; `VirtualMachine.end` tells how.
    public var ended: @Sendable () -> Void = {}
    /// The first vCPU is about to execute the guest's first instruction.
    public var entered: @Sendable () -> Void = {}
    /// A vCPU's thread has opened what it needs, and waits for the guest to start: what is still to be done on that thread. When it
    /// fails, the guest does not start.
    public var threadIsReady: @Sendable (_ processor: Int) throws(LinuxError) -> Void = { _ in }
    public init() {}
}

/// A running guest: memory, vCPUs, devices.
///
/// ```
///  init(opening:) --> opened --load--> stopped at its entry point --start--> running <--resume / pause--> paused
///                                       ^                                       |                            |
///  init --------------------------------+                                       +---- end of the guest ------+--> ended
/// ```
/// Between `opened` and the rest nothing is opened by a path, and no thread is made once ``startThreads()`` was called.
///
/// All methods may be called from any thread but a vCPU's. The object must be shut down before it goes.
public final class VirtualMachine: Sendable {
    public let configuration: VirtualMachineConfiguration
    public let memory: GuestMemory
    /// The first serial line (COM1).
    public let serial: Serial16550
    /// Whether the guest could hear ``requestStop()``: a payload has no power button, however it was recognised.
    public var hasPowerButton: Bool { loaded.withLock { $0.hasPowerButton } }

    let machine: KVMMachine
    let control: RunControl
    let processors: [VirtualCPU]
    private let devices: [DeviceDescription]
    /// The vCPUs, and the threads of devices that write guest memory.
    private let writers: PauseGroup
    private let power: ACPIPowerDevice
    private let threadIsReady: @Sendable (Int) throws(LinuxError) -> Void
    private let startedThreads = Mutex(false)
    /// How many vCPUs' threads are ready, and what kept one from it.
    private let ready = Monitor((count: 0, failure: LinuxError?.none))
    /// KVM itself, for whoever makes another guest in this process.
    public let system: KVMSystem

    /// What loading leaves behind.
    private struct Loaded {
        /// nil once they were read.
        var images: BootImages?
        var hasPowerButton = true
        let timestampFrequency: UInt64
    }
    private let loaded: Mutex<Loaded>

    /// Makes devices beyond the standard ones, when there is memory and a VM to connect them to.
    package typealias DeviceMaker = (DeviceContext) throws(HypervisorError) -> [DeviceDescription]

    /// Builds a guest up to, not including, its first instruction: opens all and loads it.
    public convenience init(
        _ configuration: VirtualMachineConfiguration, observer: GuestObserver = GuestObserver()
    ) throws(HypervisorError) {
        try self.init(configuration, observer: observer, makeDevices: { _ in [] })
    }

    /// As the public one, with devices of the caller's beside the standard ones.
    package convenience init(
        _ configuration: VirtualMachineConfiguration, observer: GuestObserver, makeDevices: DeviceMaker
    ) throws(HypervisorError) {
        try self.init(opening: configuration, observer: observer, makeDevices: makeDevices)
        try load()
    }

    /// Opens everything that a guest is made of, and reads none of its images. In order: images, KVM, memory, slots, interrupt
    /// controllers, devices, vCPUs.
    public convenience init(
        opening configuration: VirtualMachineConfiguration, observer: GuestObserver = GuestObserver()
    ) throws(HypervisorError) {
        try self.init(opening: configuration, observer: observer, makeDevices: { _ in [] })
    }

    /// As the public one, with devices of the caller's beside the standard ones.
    package init(
        opening configuration: VirtualMachineConfiguration, observer: GuestObserver, makeDevices: DeviceMaker
    ) throws(HypervisorError) {
        try configuration.validate()
        self.configuration = configuration
        let system = try KVMSystem(path: configuration.kvmPath)
        self.system = system
        let images = try BootImages(configuration)
        let memory = try memoryAccess { () throws(GuestMemoryError) in
            try GuestMemory(
                sizeInBytes: configuration.memorySizeInBytes, lowLimit: Layout.holeStart,
                highStart: Layout.fourGiB,
                name: configuration.name, backing: configuration.memoryBacking)
        }
        self.memory = memory
        let machine = try Self.createMachine(system, memory, configuration)
        self.machine = machine

        let count = configuration.processorCount
        let payloads = (0..<count).map { _ in PayloadProcessor() }
        let standard = StandardDevices(observer, processors: payloads) { gsi, level in
            // The only failure possible is that of a VM without interrupt controller, which ours never is.
            try? machine.setInterruptLine(gsi, level: level)
        }
        serial = standard.serial
        power = standard.power
        let devices = standard.descriptions + (try makeDevices(DeviceContext(memory, machine)))
        self.devices = devices
        let bus = Bus(devices)

        let control = RunControl(processorCount: count, ended: observer.ended)
        self.control = control
        let entered = FirstEntry(observer.entered)
        let processors = try Self.createProcessors(system, machine, count).enumerated().map {
            VirtualCPU(
                index: $0, processor: $1, control: control, bus: bus, memory: memory, payload: payloads[$0],
                willEnter: { entered.report() })
        }
        self.processors = processors
        writers = PauseGroup([ProcessorWriters(control, processors)] + devices.compactMap(\.writers))
        let frequency = UInt64(max(0, (try? processors[0].processor.timestampFrequency()) ?? 0)) * 1000
        loaded = Mutex(Loaded(images: images, timestampFrequency: frequency))
        threadIsReady = observer.threadIsReady
    }

    /// Reads the images into guest memory, and has the vCPUs begin at the kernel's entry. Once, before the start.
    public func load() throws(HypervisorError) {
        let (images, frequency) = loaded.withLock { loaded in
            defer { loaded.images = nil }
            return (loaded.images, loaded.timestampFrequency)
        }
        guard let images else { preconditionFailure("a guest is loaded once") }
        let entry = try GuestLoader(
            configuration: configuration, memory: memory, images: images, devices: devices,
            timestampFrequency: frequency
        ).load()
        if case .payload = entry.mode { loaded.withLock { $0.hasPowerButton = false } }
        for processor in processors {
            try hypervisorSystem { () throws(LinuxError) in
                try VCPUState.apply(entry, to: processor.processor, index: processor.index)
            }
        }
    }

    // MARK: life

    /// Lets the guest run. Once, when it is loaded.
    public func start() throws(HypervisorError) {
        try startThreads()
        try waitUntilThreadsAreReady()
        control.resume()
    }

    /// Makes the threads of the vCPUs, which get ready and wait for the start. Later calls do nothing.
    public func startThreads() throws(HypervisorError) {
        let again = startedThreads.withLock { started in
            defer { started = true }
            return started
        }
        if again { return }
        for processor in processors {
            do throws(LinuxError) {
                try processor.startThread { [self] in prepareThread(processor.index) }
            } catch {
                // Those that did start must not run a guest that is not whole.
                control.end(.stopped, kick: kick)
                for index in processor.index..<processors.count { control.finish(index) }
                shutDown()
                throw .system(error)
            }
        }
    }

    /// Waits until every vCPU's thread is ready.
    public func waitUntilThreadsAreReady() throws(HypervisorError) {
        let count = processors.count
        let failure =
            ready.wait { $0.count == count ? $0.failure.map { .some($0) } ?? .some(nil) : nil } ?? nil
        if let failure {
            stop(.failed("\(failure)"))
            throw .system(failure)
        }
    }

    /// On a vCPU's thread.
    private func prepareThread(_ index: Int) {
        var failure: LinuxError?
        do throws(LinuxError) { try threadIsReady(index) } catch { failure = error }
        ready.update {
            $0.count += 1
            $0.failure = $0.failure ?? failure
        }
    }

    /// Stops all vCPUs outside the guest, every access of theirs completed, and the devices' own threads; returns when they
    /// are. Nests with ``resume()``. Takes about 0.1 ms on an idle core, some milliseconds on a busy one.
    public func pause() { writers.pause() }

    /// Undoes one ``pause()``.
    public func resume() { writers.resume() }

    /// Presses the power button.
    /// - Returns: false when the guest's kernel does not listen to it (yet).
    @discardableResult
    public func requestStop() -> Bool {
        power.pressPowerButton()
        return power.powerButtonIsHandled
    }

    /// Ends the guest where it stands, waits for its threads. The first reason given counts; a guest that has ended by
    /// itself keeps its own. May be called again.
    public func stop(_ reason: GuestEnd = .stopped) {
        control.end(reason, kick: kick)
        shutDown()
    }

    /// How the guest ended; nil while it lives.
    public var end: GuestEnd? { control.end }

    /// Whether the vCPUs are held.
    public var isPaused: Bool { control.isPaused }

    /// How long the vCPUs' threads together ran and waited for a CPU of the host since their start; nil while there is none,
    /// and where the host's kernel does not count. From any thread.
    public func processorTimes() -> ProcessorTimes? {
        var sum: ProcessorTimes?
        for processor in processors {
            guard let times = processor.threadTimes else { continue }
            sum = ProcessorTimes(
                running: (sum?.running ?? 0) + times.running, waiting: (sum?.waiting ?? 0) + times.waiting)
        }
        return sum
    }

    func kick(_ index: Int) { processors[index].kick() }

    private func shutDown() {
        guard startedThreads.withLock({ $0 }) else { return }
        control.waitForThreads(kick: kick)
        processors.forEach { $0.join() }
    }

    // MARK: parts

    private static func createMachine(
        _ system: KVMSystem, _ memory: GuestMemory, _ configuration: VirtualMachineConfiguration
    ) throws(HypervisorError) -> KVMMachine {
        let dirtyLog = configuration.dirtyLog
        let manual = system.checkExtension(.manualDirtyLog)
        if dirtyLog == .manual, manual == 0 {
            throw .missingCapability(KVMCapability.manualDirtyLog.name)
        }
        let beginsLater = dirtyLog == .manual && configuration.beginsDirtyLogLater
        return try hypervisorSystem { () throws(LinuxError) in
            let machine = try system.createMachine()
            if dirtyLog == .manual {
                // With all pages reported at first (Linux 5.7), beginning protects none of them; else it protects all.
                let all = beginsLater ? KVMMachine.dirtyLogInitiallySet & UInt64(manual) : 0
                try machine.enable(.manualDirtyLog, argument: KVMMachine.dirtyLogManualProtect | all)
            }
            // Without it, user-mode code that KVM cannot emulate gets #UD, and nobody learns why.
            if system.checkExtension(.exitOnEmulationFailure) != 0 {
                try machine.enable(.exitOnEmulationFailure, argument: 1)
            }
            try machine.setIdentityMapAddress(Layout.identityMap)
            try machine.setTSSAddress(Layout.tss)
            try setRegions(machine, memory, logs: dirtyLog != .off && !beginsLater)
            // After the slots: registering their ports starts a grace period, which a new slot would wait out
            // (7 ms instead of 0.1).
            try machine.createInterruptController()
            try machine.createTimer()
            return machine
        }
    }

    private static func setRegions(_ machine: KVMMachine, _ memory: GuestMemory, logs: Bool)
        throws(LinuxError)
    {
        for (slot, region) in memory.regions.enumerated() {
            try machine.setMemoryRegion(
                slot: UInt32(slot), start: region.range.start, sizeInBytes: region.range.sizeInBytes,
                hostAddress: memory.hostAddress(of: region), flags: logs ? KVMMachine.logDirtyPages : 0)
        }
    }

    private static func createProcessors(
        _ system: KVMSystem, _ machine: KVMMachine, _ count: Int
    ) throws(HypervisorError) -> [KVMProcessor] {
        let limit = Int(system.checkExtension(.maximumProcessors))
        guard count <= max(limit, 1) else {
            throw .invalidConfiguration("\(count) vCPUs: this host's KVM allows \(limit) for a guest")
        }
        return try hypervisorSystem { () throws(LinuxError) in
            let supported = try system.supportedCPUID()
            let deadline = system.checkExtension(.tscDeadlineTimer) != 0
            var processors: [KVMProcessor] = []
            for index in 0..<count {
                let processor = try machine.createProcessor(index)
                try processor.setCPUID(
                    CPUIDPolicy.entries(
                        supported, index: index, processorCount: count, hasDeadlineTimer: deadline))
                processors.append(processor)
            }
            return processors
        }
    }
}

extension VirtualMachine: WriterControl {
    public func pauseWriters() { pause() }
    public func resumeWriters() { resume() }
}

extension VirtualMachine: DirtyPageLog {
    /// Only the slots' flags change, which KVM does while the guest runs.
    public func beginLogging() throws(LinuxError) {
        guard configuration.beginsDirtyLogLater else { return }
        try Self.setRegions(machine, memory, logs: true)
    }

    public func harvestDirtyPages(into bitmap: inout [UInt64]) throws(LinuxError) {
        precondition(bitmap.count >= Int(memory.sizeInBytes >> Page.shift + 63) / 64, "one bit a page")
        for (slot, region) in memory.regions.enumerated() {
            let words = try machine.dirtyLog(
                slot: UInt32(slot), pageCount: Int(region.range.sizeInBytes >> Page.shift))
            // The first region's size is a multiple of 64 pages whenever there is a second.
            let first = Int(region.fileOffset >> Page.shift) / 64
            for (index, word) in words.enumerated() where word != 0 { bitmap[first + index] |= word }
        }
    }

    public func clearDirtyPages(_ bitmap: [UInt64]) throws(LinuxError) {
        guard configuration.dirtyLog == .manual, bitmap.contains(where: { $0 != 0 }) else { return }
        for (slot, region) in memory.regions.enumerated() {
            let first = Int(region.fileOffset >> Page.shift) / 64
            let pageCount = Int(region.range.sizeInBytes >> Page.shift)
            try machine.clearDirtyLog(
                slot: UInt32(slot), firstPage: 0, pageCount: pageCount,
                bitmap: bitmap[first..<first + (pageCount + 63) / 64])
        }
    }
}

/// Reports the first entry of any vCPU, once.
private final class FirstEntry: Sendable {
    private let done = Atomic(false)
    private let body: @Sendable () -> Void
    init(_ body: @escaping @Sendable () -> Void) { self.body = body }
    func report() {
        if done.exchange(true, ordering: .relaxed) == false { body() }
    }
}
