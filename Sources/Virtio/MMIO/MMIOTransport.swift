package import GuestMemory
package import Hypervisor
internal import LinuxHost

/// A device's registers (virtio 1.2, 4.2.2), its state by the driver's status, and its queues.
///
/// ```
///  reset --ACKNOWLEDGE, DRIVER--> features --FEATURES_OK--> queues --DRIVER_OK--> running --broken rule--> needs reset
///    ^----------------------------------- status 0, at any time ---------------------------------------------/
/// ```
/// Registers are used on vCPU threads; queues are served on the event loop's, by ``serve(queue:)``. Both hold one lock, so that a reset
/// that has returned is one after which the device does not touch the driver's memory.
package final class MMIOTransport: MemoryDevice {
    private enum Register {
        static let magic: UInt64 = 0x000
        static let version: UInt64 = 0x004
        static let deviceID: UInt64 = 0x008
        static let vendorID: UInt64 = 0x00C
        static let deviceFeatures: UInt64 = 0x010
        static let deviceFeaturesSelect: UInt64 = 0x014
        static let driverFeatures: UInt64 = 0x020
        static let driverFeaturesSelect: UInt64 = 0x024
        static let queueSelect: UInt64 = 0x030
        static let queueSizeMaximum: UInt64 = 0x034
        static let queueSize: UInt64 = 0x038
        static let queueReady: UInt64 = 0x044
        static let queueNotify: UInt64 = 0x050
        static let interruptStatus: UInt64 = 0x060
        static let interruptAcknowledge: UInt64 = 0x064
        static let status: UInt64 = 0x070
        static let queueDescriptorsLow: UInt64 = 0x080
        static let queueDescriptorsHigh: UInt64 = 0x084
        static let queueDriverLow: UInt64 = 0x090
        static let queueDriverHigh: UInt64 = 0x094
        static let queueDeviceLow: UInt64 = 0x0A0
        static let queueDeviceHigh: UInt64 = 0x0A4
        static let sharedMemoryLengthLow: UInt64 = 0x0B0
        static let sharedMemoryBaseHigh: UInt64 = 0x0BC
        static let configurationGeneration: UInt64 = 0x0FC
        static let configuration: UInt64 = 0x100
    }
    private enum Status {
        static let acknowledge: UInt32 = 1
        static let driver: UInt32 = 2
        static let driverOK: UInt32 = 4
        static let featuresOK: UInt32 = 8
        static let needsReset: UInt32 = 64
        static let failed: UInt32 = 128
    }
    private enum Interrupt {
        static let usedBuffer: UInt32 = 1
        static let configurationChange: UInt32 = 2
    }
    /// VIRTIO_F_VERSION_1: without it no driver is served.
    package static let version1: UInt64 = 1 << 32
    /// "virt".
    private static let magic: UInt32 = 0x7472_6976
    /// "MNGL": of no meaning to drivers.
    private static let vendor: UInt32 = 0x4C47_4E4D
    /// The notify register's offset, where an ioeventfd listens.
    package static let notifyOffset = Register.queueNotify

    private struct QueueSetup {
        var size: UInt16
        var isReady = false
        var places = VirtQueue.Places()
    }
    private struct State {
        var status: UInt32 = 0
        var deviceFeaturesSelect: UInt32 = 0
        var driverFeaturesSelect: UInt32 = 0
        var driverFeatures: UInt64 = 0
        var queueSelect: UInt32 = 0
        var interruptStatus: UInt32 = 0
        var setups: [QueueSetup]
        /// Those that run; nil before DRIVER_OK, and for queues that the driver left out.
        var queues: [VirtQueue?] = []
        /// Why the device needs a reset.
        var problem: QueueError?
    }

    package let device: any VirtioDevice
    private let memory: GuestMemory
    private let features: UInt64
    private let state: Monitor<State>
    private let interrupt: @Sendable () -> Void
    private let started: @Sendable () -> Void

    /// - Parameters:
    ///   - interrupt: makes one edge on the device's line; called under the lock, must not block.
    ///   - started: the driver has set the device up, and every queue is to be served once; called on a vCPU's thread.
    package init(
        _ device: any VirtioDevice, memory: GuestMemory, interrupt: @escaping @Sendable () -> Void,
        started: @escaping @Sendable () -> Void
    ) {
        self.device = device
        self.memory = memory
        self.interrupt = interrupt
        self.started = started
        features = device.features | Self.version1 | VirtQueue.indirectDescriptors | VirtQueue.eventIndex
        state = Monitor(State(setups: Self.setups(of: device)))
    }

    private static func setups(of device: any VirtioDevice) -> [QueueSetup] {
        device.queueSizes.map { QueueSetup(size: $0) }
    }

    /// Why the device waits for a reset; nil while it is well.
    package var problem: QueueError? { state.withLock { $0.problem } }

    // MARK: queues

    /// Serves a queue, if it runs. On the event loop's thread.
    /// - Returns: whether more is to be served at once: a driver that never stops must not keep the event loop.
    package func serve(queue index: Int) -> Bool {
        state.withLock { state in
            guard state.queues.indices.contains(index), var queue = state.queues[index],
                state.status & Status.needsReset == 0
            else { return false }
            var hasMore = false
            // One owner: the copy in the state is not used meanwhile.
            state.queues[index] = nil
            do throws(QueueError) {
                try device.serve(queue: index, &queue, memory)
                hasMore = try queue.rearm()
                if try queue.takeInterrupt() { raise(Interrupt.usedBuffer, &state) }
            } catch { fail(error, &state) }
            state.queues[index] = queue
            return hasMore
        }
    }

    private func fail(_ error: QueueError, _ state: inout State) {
        state.problem = error
        state.status |= Status.needsReset
        // 2.1.2: a driver that runs is told so.
        if state.status & Status.driverOK != 0 { raise(Interrupt.configurationChange, &state) }
    }

    private func raise(_ cause: UInt32, _ state: inout State) {
        state.interruptStatus |= cause
        interrupt()
    }

    // MARK: registers

    package func read(offset: UInt64, size: Int, by vcpu: any ProcessorContext) -> UInt64 {
        if offset >= Register.configuration {
            return readConfiguration(Int(offset - Register.configuration), size)
        }
        // 4.2.2.2: registers are read and written in words.
        guard size == 4, offset % 4 == 0 else { return 0 }
        return UInt64(state.withLock { register(offset, $0) })
    }

    private func register(_ offset: UInt64, _ state: State) -> UInt32 {
        let setup = selected(state).map { state.setups[$0] }
        switch offset {
        case Register.magic: return Self.magic
        case Register.version: return 2
        case Register.deviceID: return device.kind.rawValue
        case Register.vendorID: return Self.vendor
        case Register.deviceFeatures:
            return state.deviceFeaturesSelect < 2
                ? UInt32(truncatingIfNeeded: features >> (UInt64(state.deviceFeaturesSelect) * 32)) : 0
        case Register.queueSizeMaximum:
            return selected(state).map { UInt32(device.queueSizes[$0]) } ?? 0
        case Register.queueReady: return setup?.isReady == true ? 1 : 0
        case Register.interruptStatus: return state.interruptStatus
        case Register.status: return state.status
        case Register.sharedMemoryLengthLow...Register.sharedMemoryBaseHigh:
            return UInt32.max  // there is no such region (4.2.2)
        case Register.configurationGeneration: return 0
        default: return 0
        }
    }

    private func selected(_ state: State) -> Int? {
        let index = Int(state.queueSelect)
        return state.setups.indices.contains(index) ? index : nil
    }

    private func readConfiguration(_ offset: Int, _ size: Int) -> UInt64 {
        let bytes = state.withLock { _ in device.configuration }
        return (0..<size).reversed().reduce(0) { value, index in
            let place = offset + index
            return value << 8 | (bytes.indices.contains(place) ? UInt64(bytes[place]) : 0)
        }
    }

    package func write(offset: UInt64, size: Int, value: UInt64, by vcpu: any ProcessorContext) {
        if offset >= Register.configuration {
            let bytes = (0..<size).map { UInt8(truncatingIfNeeded: value >> UInt64($0 * 8)) }
            let place = Int(offset - Register.configuration)
            return state.withLock { _ in device.writeConfiguration(offset: place, bytes: bytes) }
        }
        guard size == 4, offset % 4 == 0 else { return }
        let hasStarted = state.withLock { state in
            set(offset, UInt32(truncatingIfNeeded: value), &state)
        }
        if hasStarted { started() }
    }

    /// - Returns: whether the device has just begun to run.
    private func set(_ offset: UInt64, _ value: UInt32, _ state: inout State) -> Bool {
        switch offset {
        case Register.deviceFeaturesSelect: state.deviceFeaturesSelect = value
        case Register.driverFeaturesSelect: state.driverFeaturesSelect = value
        case Register.driverFeatures: setDriverFeatures(value, &state)
        case Register.queueSelect: state.queueSelect = value
        case Register.interruptAcknowledge: state.interruptStatus &= ~value
        case Register.status: return setStatus(value, &state)
        // An ioeventfd takes these; one that comes here all the same means the same.
        case Register.queueNotify: return state.status & Status.driverOK != 0
        default: setQueue(offset, value, &state)
        }
        return false
    }

    private func setDriverFeatures(_ value: UInt32, _ state: inout State) {
        guard state.status & Status.featuresOK == 0, state.driverFeaturesSelect < 2 else { return }
        let shift = UInt64(state.driverFeaturesSelect) * 32
        state.driverFeatures = state.driverFeatures & ~(0xffff_ffff << shift) | UInt64(value) << shift
    }

    private func setQueue(_ offset: UInt64, _ value: UInt32, _ state: inout State) {
        // A queue is set up before the driver is ready, and left alone while it is ready itself (4.2.2.2).
        guard let index = selected(state), state.status & Status.driverOK == 0 else { return }
        if offset == Register.queueReady {
            state.setups[index].isReady = value & 1 != 0
            return
        }
        guard !state.setups[index].isReady else { return }
        switch offset {
        case Register.queueSize:
            // A size that the device does not have makes the queue useless, which is found when it begins.
            state.setups[index].size = value <= UInt32(device.queueSizes[index]) ? UInt16(value) : 0
        case Register.queueDescriptorsLow: Self.setLow(&state.setups[index].places.descriptors, value)
        case Register.queueDescriptorsHigh: Self.setHigh(&state.setups[index].places.descriptors, value)
        case Register.queueDriverLow: Self.setLow(&state.setups[index].places.available, value)
        case Register.queueDriverHigh: Self.setHigh(&state.setups[index].places.available, value)
        case Register.queueDeviceLow: Self.setLow(&state.setups[index].places.used, value)
        case Register.queueDeviceHigh: Self.setHigh(&state.setups[index].places.used, value)
        default: break
        }
    }

    private static func setLow(_ address: inout GuestAddress, _ value: UInt32) {
        address = GuestAddress(address.value & ~0xffff_ffff | UInt64(value))
    }
    private static func setHigh(_ address: inout GuestAddress, _ value: UInt32) {
        address = GuestAddress(address.value & 0xffff_ffff | UInt64(value) << 32)
    }

    private func setStatus(_ value: UInt32, _ state: inout State) -> Bool {
        if value == 0 {
            state = State(setups: Self.setups(of: device))
            device.reset()
            return false
        }
        // Bits are only added, and the device's own is not the driver's.
        var new = state.status | value & ~Status.needsReset
        let isAsked = new & Status.featuresOK != 0 && state.status & Status.featuresOK == 0
        if isAsked, state.driverFeatures & ~features != 0 || state.driverFeatures & Self.version1 == 0 {
            new &= ~Status.featuresOK  // 2.2.2: what was not offered cannot be had
        }
        let begins =
            new & Status.driverOK != 0 && state.status & Status.driverOK == 0
            && new & Status.featuresOK != 0 && new & (Status.failed | Status.needsReset) == 0
        if new & Status.featuresOK == 0 { new &= ~Status.driverOK }
        state.status = new
        if begins { begin(&state) }
        return begins
    }

    private func begin(_ state: inout State) {
        state.queues = [VirtQueue?](repeating: nil, count: state.setups.count)
        do throws(QueueError) {
            for (index, setup) in state.setups.enumerated() where setup.isReady {
                state.queues[index] = try VirtQueue(
                    memory: memory, size: setup.size, places: setup.places, features: state.driverFeatures)
            }
        } catch { fail(error, &state) }
    }
}
