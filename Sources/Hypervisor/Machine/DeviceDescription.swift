package import GuestMemory

/// What a device is to its machine, stated once: the ports and windows that the bus leads to it, its interrupt, its entry in the
/// DSDT, and the threads of it that write guest memory.
package struct DeviceDescription: Sendable {
    /// Ports in a row that lead to a device.
    struct Ports: Sendable {
        let first: UInt16
        let count: UInt8
        let device: any PortDevice

        init(_ first: UInt16, _ count: UInt8, _ device: any PortDevice) {
            (self.first, self.count, self.device) = (first, count, device)
        }
    }

    /// Guest-physical addresses that lead to a device.
    package struct Window: Sendable {
        package let range: GuestRange
        package let device: any MemoryDevice

        package init(_ range: GuestRange, _ device: any MemoryDevice) {
            (self.range, self.device) = (range, device)
        }
    }

    /// An interrupt line of the IOAPIC, edge triggered and active high.
    package struct Interrupt: Hashable, Sendable {
        package let gsi: UInt32
        /// Other devices may signal the same line.
        package var isShared = false

        package init(gsi: UInt32, isShared: Bool = false) { (self.gsi, self.isShared) = (gsi, isShared) }
    }

    /// Its entry in the DSDT, by which the guest's kernel finds it.
    package struct Identity: Sendable {
        /// Four characters, unique below \_SB.
        package let name: String
        /// _HID, a string ("LNRO0005") or an EISA id ("PNP0501").
        package let hardwareID: String
        package var uniqueID: UInt8 = 0

        package init(name: String, hardwareID: String, uniqueID: UInt8 = 0) {
            (self.name, self.hardwareID, self.uniqueID) = (name, hardwareID, uniqueID)
        }
    }

    /// nil for a device that kernels know by its place, or that another table describes.
    package var identity: Identity?
    private(set) var ports: [Ports] = []
    package var windows: [Window] = []
    package var interrupt: Interrupt?
    /// Threads of the device that write guest memory; nil when only vCPU threads run it.
    package var writers: (any PauseMember)?

    package init(
        identity: Identity? = nil, windows: [Window] = [], interrupt: Interrupt? = nil,
        writers: (any PauseMember)? = nil
    ) {
        (self.identity, self.windows) = (identity, windows)
        (self.interrupt, self.writers) = (interrupt, writers)
    }

    /// A platform device, at ports.
    init(identity: Identity? = nil, ports: [Ports], interrupt: Interrupt? = nil) {
        (self.identity, self.ports, self.interrupt) = (identity, ports, interrupt)
    }
}
