package import GuestMemory
package import LinuxHost

/// What a device beyond the standard ones is made with: guest memory, a place on the bus, an interrupt line, and descriptors by which
/// KVM hands notifications to a thread and takes interrupts from one.
package final class DeviceContext {
    package let memory: GuestMemory
    private let machine: KVMMachine
    private var places = 0

    init(_ memory: GuestMemory, _ machine: KVMMachine) {
        self.memory = memory
        self.machine = machine
    }

    /// Where a device in a window of guest-physical addresses is.
    package struct Place: Sendable {
        /// Which of them it is, from 0.
        package let number: Int
        package let window: GuestRange
        package let interrupt: DeviceDescription.Interrupt
    }

    /// The next free place.
    /// - Throws: when all are taken.
    package func takePlace() throws(HypervisorError) -> Place {
        guard places < Layout.virtioWindowCount else {
            throw .invalidConfiguration("a guest can have \(Layout.virtioWindowCount) virtio devices")
        }
        defer { places += 1 }
        return Place(
            number: places, window: Layout.virtioWindow(places), interrupt: Layout.virtioInterrupt(places))
    }

    /// An eventfd that counts the guest's writes of a 32-bit value to an address (KVM_IOEVENTFD): the vCPU goes on at once.
    package func notifications(at address: GuestAddress, value: UInt32) throws(HypervisorError)
        -> OwnedDescriptor
    {
        try hypervisorSystem { () throws(LinuxError) in
            let event = try OwnedDescriptor.event()
            try machine.registerNotifications(event, at: address, value: value)
            return event
        }
    }

    /// An eventfd each of whose signals is an edge on an interrupt line (KVM_IRQFD).
    package func interrupts(on line: DeviceDescription.Interrupt) throws(HypervisorError) -> OwnedDescriptor {
        try hypervisorSystem { () throws(LinuxError) in
            let event = try OwnedDescriptor.event()
            try machine.registerInterrupts(event, gsi: line.gsi)
            return event
        }
    }
}
