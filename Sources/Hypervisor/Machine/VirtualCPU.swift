internal import GuestMemory
internal import LinuxHost
internal import Synchronization

/// A vCPU and its thread: enters the guest, hands its exits to the devices, obeys ``RunControl``.
///
/// ```
///  checked in --> entering --KVM_RUN--> exit --> handled --> (access to complete) --> entering ...
///      ^                                                          |
///      +---------------- the request has changed -----------------+
/// ```
final class VirtualCPU: ProcessorContext {
    let index: Int
    let processor: KVMProcessor
    private let control: RunControl
    private let bus: Bus
    private let memory: GuestMemory
    /// Whether the guest sleeps.
    private let payload: PayloadProcessor
    private let thread = Mutex<HostThread?>(nil)
    private let times = Mutex<ThreadTimes?>(nil)
    /// Called before the first entry.
    private let willEnter: @Sendable () -> Void

    init(
        index: Int, processor: KVMProcessor, control: RunControl, bus: Bus, memory: GuestMemory,
        payload: PayloadProcessor, willEnter: @escaping @Sendable () -> Void
    ) {
        self.index = index
        self.processor = processor
        self.control = control
        self.bus = bus
        self.memory = memory
        self.payload = payload
        self.willEnter = willEnter
    }

    // MARK: the owner's side

    /// Starts the thread; it waits until the machine is resumed.
    /// - Parameter isReady: called on the thread when it has opened what it needs.
    func startThread(_ isReady: @escaping @Sendable () -> Void) throws(LinuxError) {
        let thread = try HostThread(name: "vcpu\(index)", interruptible: true) { [self] in threadMain(isReady)
        }
        self.thread.withLock { $0 = thread }
    }

    /// Makes the vCPU leave the guest and look at the request again. From any thread.
    func kick() {
        processor.requestImmediateExit(true)
        thread.withLock { $0 }?.kick()
    }

    /// Waits for the thread; after ``RunControl/waitForThreads(kick:)``.
    func join() { thread.withLock { $0.take() }?.join() }

    /// How long the thread ran and waited for a CPU; nil before its start, and where the host's kernel does not count.
    var threadTimes: ProcessorTimes? { times.withLock { $0?.read() } }

    // MARK: what devices ask of the vCPU that they serve

    func end(_ reason: GuestEnd) { control.endFromProcessor(reason) }

    // MARK: the thread

    private func threadMain(_ isReady: () -> Void) {
        defer { control.finish(index) }
        // Without it the guest counts as one at rest.
        do throws(LinuxError) {
            let own = try ThreadTimes()
            times.withLock { $0 = own }
        } catch {}
        isReady()
        do throws(LinuxError) {
            var seen: UInt64 = 0
            guard control.checkIn(index, seen: &seen) else { return }
            willEnter()
            try runLoop(&seen)
        } catch { control.endFromProcessor(.failed("vCPU \(index): \(error)\n\(describeState())")) }
    }

    private func runLoop(_ seen: inout UInt64) throws(LinuxError) {
        // True when KVM holds the second half of an access, which it does at the next KVM_RUN.
        var mustComplete = false
        while true {
            // First clear, then look: a request made in between sets it again.
            processor.requestImmediateExit(false)
            if control.hasChanged(since: seen) {
                if mustComplete {
                    processor.requestImmediateExit(true)
                    mustComplete = try handle(processor.enter())
                    continue
                }
                let before = monotonicNanoseconds()
                guard control.checkIn(index, seen: &seen) else { return }
                // The guest's soft-lockup watchdog looks at seconds; short stops need no excuse.
                if monotonicNanoseconds() - before > 500_000_000 { processor.noteHostPause() }
                continue
            }
            let deadline = payload.sleepDeadline.load(ordering: .relaxed)
            if deadline != 0 {
                if monotonicNanoseconds() < deadline {
                    control.sleep(until: deadline, seen: seen)
                    continue
                }
                payload.sleepDeadline.store(0, ordering: .relaxed)
            }
            mustComplete = try handle(processor.enter())
        }
    }

    /// - Returns: whether KVM must complete an access at the next entry.
    private func handle(_ exit: VCPUExit) -> Bool {
        switch exit {
        case .port(let access):
            for repetition in 0..<access.count {
                if access.isWrite {
                    let value = processor.portValue(access, repetition)
                    bus.write(port: access.port, size: access.size, value: value, by: self)
                } else {
                    let value = bus.read(port: access.port, size: access.size, by: self)
                    processor.setPortValue(access, repetition, value)
                }
            }
            return true
        // An emulated access finds RAM unmapped: not a device's, and all ones would be wrong bytes.
        case .mmioRead(let address, let size) where isMemory(address, size),
            .mmioWrite(let address, let size, _) where isMemory(address, size):
            end(.failed("RAM at \(address) is not mapped\n\(describeState())"))
        case .mmioRead(let address, let size):
            processor.completeRead(bus.read(address, size: size, by: self))
            return true
        case .mmioWrite(let address, let size, let value):
            bus.write(address, size: size, value: value, by: self)
            return true
        case .interrupted, .nothing, .halt: return false
        case .shutdown: end(.tripleFault(describeState()))
        case .systemEvent(1): end(.poweredOff)  // KVM_SYSTEM_EVENT_SHUTDOWN
        case .systemEvent(2): end(.rebooted)  // KVM_SYSTEM_EVENT_RESET
        case .systemEvent(3): end(.panicked)  // KVM_SYSTEM_EVENT_CRASH
        case .systemEvent(let type): end(.failed("KVM_EXIT_SYSTEM_EVENT of type \(type)\n\(describeState())"))
        case .failedEntry(let reason, let processor):
            let text = "KVM_EXIT_FAIL_ENTRY: hardware reason 0x\(hex(reason)) on processor \(processor)"
            end(.failed("\(text)\n\(describeState())"))
        case .internalError(let suberror, let data):
            let words = data.map { "0x" + hex($0) }.joined(separator: " ")
            let text = "KVM_EXIT_INTERNAL_ERROR, \(Self.suberrorName(suberror)), data \(words)"
            end(.failed("\(text)\n\(describeState())"))
        case .unsupported(let reason):
            end(.failed("unexpected KVM exit reason \(reason)\n\(describeState())"))
        }
        return false
    }

    private func isMemory(_ address: GuestAddress, _ size: Int) -> Bool {
        GuestRange(start: address, sizeInBytes: UInt64(size)).map(memory.isRAM) ?? false
    }

    private static func suberrorName(_ suberror: UInt32) -> String {
        switch suberror {
        case 1: "KVM_INTERNAL_ERROR_EMULATION (an instruction that KVM cannot emulate)"
        case 2: "KVM_INTERNAL_ERROR_SIMUL_EX (a fault while delivering another)"
        case 3: "KVM_INTERNAL_ERROR_DELIVERY_EV (a fault while delivering an event)"
        case 4: "KVM_INTERNAL_ERROR_UNEXPECTED_EXIT_REASON"
        default: "suberror \(suberror)"
        }
    }

    private func describeState() -> String { processor.describeState(of: index, memory) }
}

/// A number in hexadecimal without prefix, padded with zeros.
func hex(_ value: UInt64, digits: Int = 1) -> String {
    let text = String(value, radix: 16)
    return String(repeating: "0", count: max(0, digits - text.count)) + text
}
