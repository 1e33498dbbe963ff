package import Hypervisor
package import LinuxHost

/// Serves devices on an event loop, but while somebody has paused all who write guest memory. For the loop's thread.
package final class DeviceLoop {
    private struct Entry {
        let source: EventLoop.Source
        let descriptor: Int32
    }

    /// To be paused with the vCPUs.
    package let gate: WriterGate
    private let events: EventLoop
    private let reopened: OwnedDescriptor
    private var entries: [Entry] = []

    package init(_ events: EventLoop) throws(LinuxError) {
        self.events = events
        let reopened = try OwnedDescriptor.event()
        let number = reopened.number
        self.reopened = reopened
        // The descriptor lives as long as this object, and the gate's last caller ends before it does.
        gate = WriterGate { OwnedDescriptor.signalEvent(number) }
        let source = events.add { [unowned self] _ in goOn() }
        events.watch(source, number, .input)
    }

    /// Calls a handler for each signal of an eventfd, which stays open as long as the loop runs.
    /// - Parameter handler: returns whether it is to be called again at once.
    package func serve(_ event: borrowing OwnedDescriptor, _ handler: @escaping () -> Bool) {
        let descriptor = event.number
        let place = entries.count
        let source = events.add { [unowned self] _ in
            let isOpen = gate.run {
                OwnedDescriptor.drainEvent(descriptor)
                if handler() { OwnedDescriptor.signalEvent(descriptor) }
            }
            // Until it is open again, nothing is asked: the event stays.
            if !isOpen { events.watch(entries[place].source, -1, []) }
        }
        entries.append(Entry(source: source, descriptor: descriptor))
        events.watch(source, descriptor, .input)
    }

    private func goOn() {
        OwnedDescriptor.drainEvent(reopened.number)
        for entry in entries { events.watch(entry.source, entry.descriptor, .input) }
    }
}
