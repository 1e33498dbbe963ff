internal import GuestMemory
internal import LinuxHost

/// Every guest-physical address and port that is fixed, once.
enum Layout {
    // MARK: below 1 MiB
    /// Boot information page of a payload.
    static let payloadInformation = GuestAddress(0x1000)
    /// Arguments of a payload.
    static let payloadArguments = GuestAddress(0x2000)
    /// Descriptor table for the state that we enter a guest with.
    static let descriptorTable = GuestAddress(0x3000)
    /// Task state segment of a payload with its I/O permission map, up to 0x6069.
    static let taskState = GuestAddress(0x4000)
    /// hvm_start_info, its module list and memory map (PVH), one page.
    static let startInfo = GuestAddress(0x6000)
    /// Linux's boot_params ("zero page").
    static let bootParameters = GuestAddress(0x7000)
    /// Kernel command line, at most ``commandLineLimit`` bytes and a NUL.
    static let commandLine = GuestAddress(0x8000)
    /// What x86 Linux takes: COMMAND_LINE_SIZE 2048 with its NUL.
    static let commandLineLimit = 2047
    /// Page tables that a guest is entered with; up to ``lowMemoryEnd``.
    static let pageTables = GuestAddress(0x10000)
    /// End of the memory below 1 MiB that a guest may use.
    static let lowMemoryEnd = GuestAddress(0xA0000)
    /// ACPI tables, within the area where firmware leaves its root pointer (ACPI 6.5, 5.2.5.1).
    static let acpiTables = GuestAddress(0xE0000)
    /// End of the reserved area [0xA0000, 0x100000).
    static let highMemoryBase = GuestAddress(0x100000)

    // MARK: the hole below 4 GiB
    /// RAM ends here at the latest; the rest goes above 4 GiB.
    static let holeStart = GuestAddress(0xC000_0000)
    /// Windows of virtio-mmio devices, 4 KiB each.
    static let virtioWindows = GuestAddress(0xD000_0000)
    static let virtioWindowCount = 64
    /// The window of the `index`th of these devices.
    static func virtioWindow(_ index: Int) -> GuestRange {
        precondition((0..<virtioWindowCount).contains(index), "there are \(virtioWindowCount) windows")
        let start = GuestAddress(virtioWindows.value + UInt64(index) * Page.size)
        guard let range = GuestRange(start: start, sizeInBytes: Page.size) else { preconditionFailure() }
        return range
    }
    /// IOAPIC and local APIC, where the PC has them.
    static let ioapic = GuestAddress(0xFEC0_0000)
    static let localAPIC = GuestAddress(0xFEE0_0000)
    /// One page for Intel's identity map, then three for its TSS (KVM_SET_IDENTITY_MAP_ADDR, KVM_SET_TSS_ADDR).
    static let identityMap = GuestAddress(0xFEFF_C000)
    static let tss = GuestAddress(0xFEFF_D000)
    static let fourGiB = GuestAddress(0x1_0000_0000)

    // MARK: interrupts (GSIs)
    static let serialInterrupt: UInt32 = 4
    static let clockInterrupt: UInt32 = 8
    static let acpiInterrupt: UInt32 = 9
    /// GSIs of virtio-mmio devices: those of the IOAPIC's inputs that no ISA device has (a PC gives them to PCI).
    static let virtioInterrupts: Range<UInt32> = 16..<24
    /// The line of the `index`th of these devices. Beyond eight devices, lines are shared.
    static func virtioInterrupt(_ index: Int) -> DeviceDescription.Interrupt {
        .init(gsi: virtioInterrupts.lowerBound + UInt32(index % virtioInterrupts.count), isShared: true)
    }

    // MARK: ports
    static let serial: UInt16 = 0x3F8
    static let cmos: UInt16 = 0x70
    static let keyboardController: UInt16 = 0x64
    /// ISA pvpanic device, at its customary port.
    static let panic: UInt16 = 0x505
    /// PM1a event block (4 bytes), control block (2), timer (4).
    static let powerEvent: UInt16 = 0x600
    static let powerControl: UInt16 = 0x604
    static let powerTimer: UInt16 = 0x608
    /// Reset control register.
    static let reset: UInt16 = 0xCF9
    /// Exit, doorbell, sleep and clock (guests/README.md).
    static let guestPorts: UInt16 = 0xD00
}
