internal import GuestMemory
internal import LinuxHost

/// As much of ACPI Machine Language (ACPI 6.5, chapter 20) as our DSDT needs.
enum AML {
    /// \_S5, and below \_SB those devices that have an identity.
    static func definitionBlock(_ devices: [DeviceDescription]) -> [UInt8] {
        let sleepType = UInt8(ACPIPowerDevice.sleepTypeOff)
        let off = name("_S5_", package([byte(sleepType), byte(sleepType), byte(0), byte(0)]))
        return off
            + scope(
                "_SB_",
                devices.flatMap { description in
                    description.identity.map { device($0, description) } ?? []
                })
    }

    private static func device(_ identity: DeviceDescription.Identity, _ device: DeviceDescription) -> [UInt8]
    {
        var body = name("_HID", hardwareID(identity.hardwareID))
        body += name("_UID", byte(identity.uniqueID))
        body += name("_STA", byte(0x0F))
        var resources: [UInt8] = []
        for ports in device.ports {
            // I/O port descriptor (6.4.2.5), 16 bits decoded.
            var descriptor = ByteWriter()
            descriptor.put([0x47, 0x01])
            descriptor.put(ports.first)
            descriptor.put(ports.first)
            descriptor.put([1, ports.count])
            resources += descriptor.bytes
        }
        for memory in device.windows.map(\.range) {
            // 32-bit fixed memory range (6.4.3.4).
            var descriptor = ByteWriter()
            descriptor.put([0x86, 9, 0, 1])
            descriptor.put(UInt32(truncatingIfNeeded: memory.start.value))
            descriptor.put(UInt32(truncatingIfNeeded: memory.sizeInBytes))
            resources += descriptor.bytes
        }
        if let interrupt = device.interrupt {
            // Extended interrupt descriptor (6.4.3.6): consumer, edge triggered, active high; perhaps shared.
            var descriptor = ByteWriter()
            descriptor.put([0x89, 6, 0, interrupt.isShared ? 0x0B : 0x03, 1])
            descriptor.put(interrupt.gsi)
            resources += descriptor.bytes
        }
        resources += [0x79, 0]  // end tag; a checksum of 0 means: not checked
        body += name("_CRS", buffer(resources))
        return [0x5B, 0x82] + withLength(Array(identity.name.utf8) + body)
    }

    /// EISA ids are packed into 32 bits; anything else is a string.
    private static func hardwareID(_ text: String) -> [UInt8] {
        guard text.hasPrefix("PNP"), text.utf8.count == 7, let number = UInt32(text.dropFirst(3), radix: 16)
        else {
            return [0x0D] + Array(text.utf8) + [0]
        }
        let letters = text.utf8.prefix(3).map { UInt32($0) - 0x40 }
        let vendor = letters[0] << 10 | letters[1] << 5 | letters[2]
        let packed = vendor << 16 | number
        var value = ByteWriter()
        value.put(UInt8(0x0C))
        value.put(packed.byteSwapped)
        return value.bytes
    }

    private static func name(_ name: String, _ value: [UInt8]) -> [UInt8] {
        [0x08] + Array(name.utf8) + value
    }
    private static func byte(_ value: UInt8) -> [UInt8] { [0x0A, value] }
    private static func scope(_ name: String, _ body: [UInt8]) -> [UInt8] {
        [0x10] + withLength([0x5C] + Array(name.utf8) + body)
    }
    private static func package(_ elements: [[UInt8]]) -> [UInt8] {
        [0x12] + withLength([UInt8(elements.count)] + elements.flatMap { $0 })
    }
    private static func buffer(_ bytes: [UInt8]) -> [UInt8] {
        var size = ByteWriter()
        size.put(UInt8(0x0B))
        size.put(UInt16(bytes.count))
        return [0x11] + withLength(size.bytes + bytes)
    }

    /// PkgLength (20.2.4) counts itself.
    private static func withLength(_ body: [UInt8]) -> [UInt8] {
        for width in 1...4 {
            let total = body.count + width
            if width == 1, total < 64 { return [UInt8(total)] + body }
            if width > 1, total < 1 << (4 + 8 * (width - 1)) {
                var lead = [UInt8((width - 1) << 6 | total & 0x0F)]
                for index in 0..<width - 1 {
                    lead.append(UInt8(truncatingIfNeeded: total >> (4 + 8 * index)))
                }
                return lead + body
            }
        }
        preconditionFailure("a DSDT is smaller than 256 MiB")
    }
}
