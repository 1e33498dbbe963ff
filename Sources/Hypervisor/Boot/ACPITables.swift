internal import GuestMemory
internal import LinuxHost

/// RSDP, XSDT, FADT, FACS-less, MADT and DSDT (ACPI 6.5, chapter 5) for ``Layout/acpiTables``.
struct ACPITables {
    /// The bytes to place there; the RSDP comes first.
    let bytes: [UInt8]

    init(processorCount: Int, devices: [DeviceDescription]) {
        var image = ByteWriter()
        image.pad(to: 64)  // the RSDP goes here
        func place(_ table: [UInt8]) -> UInt64 {
            image.pad(to: (image.bytes.count + 15) & ~15)
            let address = Layout.acpiTables.value + UInt64(image.bytes.count)
            image.put(table)
            return address
        }
        let dsdt = place(Self.table("DSDT", revision: 2, AML.definitionBlock(devices)))
        let fadt = place(Self.fixedDescription(dsdt: dsdt))
        let madt = place(Self.interruptControllers(processorCount: processorCount))
        var pointers = ByteWriter()
        pointers.put(fadt)
        pointers.put(madt)
        let xsdt = place(Self.table("XSDT", revision: 1, pointers.bytes))
        let root = Self.rootPointer(xsdt: xsdt)
        for (offset, byte) in root.enumerated() { image.set(byte, at: offset) }
        bytes = image.bytes
        precondition(
            Layout.acpiTables.value + UInt64(bytes.count) <= Layout.highMemoryBase.value,
            "the tables fit their area")
    }

    /// A table with its header (ACPI 6.5, 5.2.6) and checksum.
    static func table(_ signature: String, revision: UInt8, _ body: [UInt8]) -> [UInt8] {
        var table = ByteWriter()
        table.put(signature, width: 4)
        table.put(UInt32(36 + body.count))
        table.put(revision)
        table.put(UInt8(0))
        table.put("MINGLE", width: 6)
        table.put("MINGLEVM", width: 8)
        table.put(UInt32(1))
        table.put("MNGL", width: 4)
        table.put(UInt32(1))
        table.put(body)
        table.set(checksum(table.bytes), at: 9)
        return table.bytes
    }

    /// The byte that makes the sum of all bytes zero.
    static func checksum(_ bytes: [UInt8]) -> UInt8 { 0 &- bytes.reduce(0, &+) }

    /// ACPI 6.5, 5.2.5.3.
    private static func rootPointer(xsdt: UInt64) -> [UInt8] {
        var root = ByteWriter()
        root.put("RSD PTR ", width: 8)
        root.put(UInt8(0))
        root.put("MINGLE", width: 6)
        root.put(UInt8(2))
        root.put(UInt32(0))
        root.set(checksum(root.bytes), at: 8)
        root.put(UInt32(36))
        root.put(xsdt)
        root.put(UInt32(0))
        root.set(checksum(root.bytes), at: 32)
        return root.bytes
    }

    /// ACPI 6.5, 5.2.9: fixed hardware with a PM1a block, the PM timer and a reset register; ACPI mode from the start.
    private static func fixedDescription(dsdt: UInt64) -> [UInt8] {
        func port(_ port: UInt16, bits: UInt8, access: UInt8) -> [UInt8] {
            var address = ByteWriter()
            address.put([1, bits, 0, access])  // system I/O
            address.put(UInt64(port))
            return address.bytes
        }
        // Offsets in the comments count from the table's start; the header takes 36.
        var body = ByteWriter()
        body.put(UInt32(0))  // 36 FIRMWARE_CTRL
        body.put(UInt32(truncatingIfNeeded: dsdt))  // 40
        body.put([0, 0])  // 44 reserved, preferred profile
        body.put(UInt16(Layout.acpiInterrupt))  // 46 SCI_INT
        body.put(UInt32(0))  // 48 SMI_CMD: always in ACPI mode
        body.put([0, 0, 0, 0])  // 52
        body.put(UInt32(Layout.powerEvent))  // 56 PM1a_EVT_BLK
        body.put(UInt32(0))
        body.put(UInt32(Layout.powerControl))  // 64 PM1a_CNT_BLK
        body.put(UInt32(0))
        body.put(UInt32(0))
        body.put(UInt32(Layout.powerTimer))  // 76 PM_TMR_BLK
        body.put(UInt32(0))
        body.put(UInt32(0))
        body.put([4, 2, 0, 4, 0, 0, 0, 0])  // 88 lengths: event 4, control 2, timer 4
        body.put(UInt16(0xFFFF))  // 96 no C2
        body.put(UInt16(0xFFFF))  // 98 no C3
        body.put(UInt16(0))
        body.put(UInt16(0))
        body.put([0, 0, 0, 0])  // 104; 108 is the century register
        body.put(UInt8(0x32))
        body.put(UInt16(0x0005))  // 109 IAPC_BOOT_ARCH: legacy devices, no VGA; no 8042 to probe
        body.put(UInt8(0))
        // 112 flags: WBINVD, C1 everywhere, sleep button absent, RTC wake absent, timer 32 bits wide, reset register
        let flags: [UInt32] = [0, 2, 5, 6, 8, 10]
        body.put(flags.reduce(UInt32(0)) { $0 | 1 << $1 })
        body.put(port(Layout.reset, bits: 8, access: 1))  // 116 RESET_REG
        body.put(UInt8(4))  // 128 RESET_VALUE
        body.put(UInt16(0))
        body.put(UInt8(5))  // 131 minor version: 6.5
        body.put(UInt64(0))  // 132 X_FIRMWARE_CTRL
        body.put(dsdt)  // 140 X_DSDT
        body.put(port(Layout.powerEvent, bits: 32, access: 2))  // 148
        body.put([UInt8](repeating: 0, count: 12))
        body.put(port(Layout.powerControl, bits: 16, access: 2))  // 172
        body.put([UInt8](repeating: 0, count: 24))  // 184 PM1b control, PM2 control
        body.put(port(Layout.powerTimer, bits: 32, access: 3))  // 208
        body.put([UInt8](repeating: 0, count: 48))  // 220 GPE0, GPE1, sleep control and status
        body.put(UInt64(0x454C_474E_494D))  // 268 hypervisor vendor: "MINGLE"
        return table("FACP", revision: 6, body.bytes)
    }

    /// ACPI 6.5, 5.2.12: a local APIC a vCPU, one IOAPIC, and the SCI's level.
    private static func interruptControllers(processorCount: Int) -> [UInt8] {
        var body = ByteWriter()
        body.put(UInt32(truncatingIfNeeded: Layout.localAPIC.value))
        body.put(UInt32(1))  // PCAT_COMPAT: there is a PIC
        for index in 0..<UInt8(processorCount) {
            body.put([0, 8, index, index])
            body.put(UInt32(1))
        }
        body.put([1, 12, 0, 0])
        body.put(UInt32(truncatingIfNeeded: Layout.ioapic.value))
        body.put(UInt32(0))
        // Interrupt source override: ISA 9 is level triggered, active high.
        body.put([2, 10, 0, UInt8(Layout.acpiInterrupt)])
        body.put(Layout.acpiInterrupt)
        body.put(UInt16(0x000D))
        // LINT1 of every local APIC is NMI.
        body.put([4, 6, 0xFF, 0, 0, 1])
        return table("APIC", revision: 5, body.bytes)
    }
}
