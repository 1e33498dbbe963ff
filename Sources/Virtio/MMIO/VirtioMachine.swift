internal import GuestMemory
package import Hypervisor
package import LinuxHost

/// The virtio devices of a machine: puts each into a window, with its line, its entry in the DSDT, and its queues on the event loop.
package final class VirtioMachine {
    private let loop: DeviceLoop
    private let context: DeviceContext
    /// What the transports signal and hear; as long as the machine lives.
    private var events: [[OwnedEvent]] = []
    package private(set) var descriptions: [DeviceDescription] = []
    package private(set) var transports: [MMIOTransport] = []

    /// A descriptor that several hold.
    private final class OwnedEvent: Sendable {
        let descriptor: OwnedDescriptor
        init(_ descriptor: consuming OwnedDescriptor) { self.descriptor = descriptor }
    }

    package init(_ context: DeviceContext, _ events: EventLoop) throws(HypervisorError) {
        self.context = context
        do throws(LinuxError) { loop = try DeviceLoop(events) } catch { throw .system(error) }
    }

    /// Adds a device, before the guest runs.
    package func add(_ device: any VirtioDevice) throws(HypervisorError) {
        let place = try context.takePlace()
        let line = OwnedEvent(try context.interrupts(on: place.interrupt))
        let notify = GuestAddress(place.window.start.value + MMIOTransport.notifyOffset)
        var queues: [OwnedEvent] = []
        for index in device.queueSizes.indices {
            queues.append(OwnedEvent(try context.notifications(at: notify, value: UInt32(index))))
        }
        let all = queues
        let transport = MMIOTransport(
            device, memory: context.memory, interrupt: { line.descriptor.signalEvent() },
            // What was put into the queues before the device ran is served on the loop as well.
            started: { for queue in all { queue.descriptor.signalEvent() } })
        for (index, queue) in queues.enumerated() {
            loop.serve(queue.descriptor) { transport.serve(queue: index) }
        }
        let isFirst = transports.isEmpty
        descriptions.append(
            DeviceDescription(
                identity: .init(
                    name: Self.name(place.number), hardwareID: "LNRO0005", uniqueID: UInt8(place.number)),
                windows: [.init(place.window, transport)], interrupt: place.interrupt,
                // One gate for all of them.
                writers: isFirst ? loop.gate : nil))
        transports.append(transport)
        events.append([line] + queues)
    }

    /// "V000" and so on, unique below \_SB.
    private static func name(_ number: Int) -> String {
        let digits = String(number)
        return "V" + String(repeating: "0", count: 3 - digits.count) + digits
    }
}
