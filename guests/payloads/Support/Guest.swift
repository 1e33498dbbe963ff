import Machine

/// What a vCPU knows from the start: the boot information page (guests/README.md), its own number, and the
/// name under which it speaks.
public struct Guest {
    public static let pageSize: UInt64 = 4096
    /// The device space, mapped in every guest.
    public static let deviceSpace: Range<UInt64> = 0xC000_0000..<0x1_0000_0000

    /// The payload's name, which begins its error messages.
    public let name: StaticString
    /// This vCPU, from 0. Number 0 leads.
    public let vcpu: UInt64
    public let vcpuCount: UInt64
    /// Tells the guests of one experiment apart.
    public let index: UInt64
    public let seed: UInt64
    /// In Hz; 0 if the host does not know.
    public let statedTSCFrequency: UInt64
    /// From `freeStart` to the end of low memory.
    public let freeLow: Range<UInt64>
    /// Memory from 4 GiB on; empty if there is none.
    public let freeHigh: Range<UInt64>
    let arguments: Text

    /// Reads the boot information at `information` as vCPU `vcpu`. Ends the guest with code 2 when it is not
    /// what this payload was written for.
    public init(_ name: StaticString, information: UInt64, vcpu: UInt64) {
        self.name = name
        self.vcpu = vcpu
        vcpuCount = UInt64(machine_load32(information + 12))
        index = UInt64(machine_load32(information + 56))
        seed = machine_load64(information + 64)
        statedTSCFrequency = machine_load64(information + 80)
        let freeStart = machine_load64(information + 48)
        let lowEnd = machine_load64(information + 24)
        let highStart = machine_load64(information + 32)
        let highEnd = machine_load64(information + 40)
        arguments = Text(
            address: machine_load64(information + 72), count: UInt64(machine_load32(information + 60)))
        freeLow = freeStart..<max(freeStart, lowEnd)
        freeHigh = highStart..<max(highStart, highEnd)
        if machine_load64(information) != 0x4250_454C_474E_494D || machine_load32(information + 8) != 1 {
            fail("no boot information of ABI version 1 at \(hex: information)")
        }
        if vcpuCount == 0 || vcpu >= vcpuCount || freeStart % Guest.pageSize != 0 || lowEnd < freeStart {
            fail(
                "the boot information contradicts itself: vcpu \(vcpu) of \(vcpuCount), freeStart \(hex: freeStart)"
            )
        }
        if lowEnd - freeStart < Guest.pageSize { fail("no memory is free: give the guest more") }
    }

    public var leads: Bool { vcpu == 0 }

    /// Every page that nobody uses, in the order of addresses.
    public var freePages: PageSet { PageSet(low: freeLow, high: freeHigh) }

    /// Is every byte of `[address, address + count)` mapped, and not the VMM's nor the payload's own?
    public func mayTouch(_ address: UInt64, count: UInt64) -> Bool {
        let (end, overflows) = address.addingReportingOverflow(count)
        if overflows { return false }
        func holds(_ range: Range<UInt64>) -> Bool { address >= range.lowerBound && end <= range.upperBound }
        return holds(freeLow) || holds(freeHigh) || holds(Guest.deviceSpace)
    }
}

// MARK: Ending and sleeping

extension Guest {
    /// Ends the guest with the low 8 bits of `code`.
    public func exit(_ code: UInt64) -> Never {
        machine_out32(Port.exit, UInt32(truncatingIfNeeded: code))
        sleepForEver()
    }

    /// Reports a mistake (the leading vCPU alone does, so that it is said once) and ends the guest with code 2.
    public func fail(_ message: Message) -> Never {
        if leads {
            say("\(name): \(message)")
            exit(2)
        }
        sleepForEver()
    }

    /// This vCPU has nothing left to do.
    public func sleepForEver() -> Never {
        while true { sleep(microseconds: 1_000_000) }
    }
}

/// Tells the host a number; 1 is "ready".
public func ringDoorbell(_ number: UInt32) {
    machine_out32(Port.doorbell, number)
}

/// The VMM's ports (guests/README.md).
enum Port {
    static let serialData: UInt16 = 0x3F8
    static let serialLineStatus: UInt16 = 0x3FD
    static let exit: UInt16 = 0xD00
    static let doorbell: UInt16 = 0xD04
    static let sleep: UInt16 = 0xD08
    static let clockLow: UInt16 = 0xD0C
    static let clockHigh: UInt16 = 0xD10
}
