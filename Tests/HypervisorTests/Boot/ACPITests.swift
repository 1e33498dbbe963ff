import Foundation
import GuestMemory
import TestSupport
import Testing

@testable import Hypervisor

/// The tables as the guest finds them, taken apart by the specification's offsets (ACPI 6.5, chapter 5).
private struct Tables {
    let memory: GuestMemory
    let root: [UInt8]
    private(set) var bySignature: [String: [UInt8]] = [:]

    init(processorCount: Int) throws {
        let bench = try LoaderBench()
        let kernel = try bench.directory.write("kernel", ELFFile.pvh().bytes)
        _ = try bench.load(path: kernel, processors: processorCount)
        memory = bench.memory
        root = try memory.read(GuestAddress(0xE_0000), count: 36)
        let xsdt = try table(at: integer(root[24..<32]))
        bySignature["XSDT"] = xsdt
        for position in stride(from: 36, to: xsdt.count, by: 8) {
            let found = try table(at: integer(xsdt[position..<position + 8]))
            bySignature[String(decoding: found[0..<4], as: UTF8.self)] = found
        }
        bySignature["DSDT"] = try table(at: integer(try get("FACP")[140..<148]))
    }

    func table(at address: UInt64) throws -> [UInt8] {
        let length = try memory.load(UInt32.self, at: GuestAddress(address + 4))
        return try memory.read(GuestAddress(address), count: Int(length))
    }
    func get(_ signature: String) throws -> [UInt8] { try #require(bySignature[signature]) }
}

@Suite struct ACPITests {
    @Test func theRootPointerIsFoundAndSumsUp() throws {
        let root = try Tables(processorCount: 1).root
        #expect(Array(root[0..<8]) == Array("RSD PTR ".utf8))
        #expect(root[0..<20].reduce(0, &+) == 0)
        #expect(root.reduce(0, &+) == 0)
        #expect(root[15] == 2 && integer(root[20..<24]) == 36)
        #expect(integer(root[16..<20]) == 0, "no RSDT")
    }

    @Test(arguments: [1, 2, 4, 32]) func everyTableHasItsLengthAndSum(processorCount: Int) throws {
        let tables = try Tables(processorCount: processorCount)
        #expect(Set(tables.bySignature.keys) == ["XSDT", "FACP", "APIC", "DSDT"])
        for (signature, bytes) in tables.bySignature {
            #expect(bytes.reduce(0, &+) == 0, "\(signature)")
            #expect(Array(bytes[0..<4]) == Array(signature.utf8))
            #expect(Array(bytes[10..<16]) == Array("MINGLE".utf8))
            #expect(Int(integer(bytes[4..<8])) == bytes.count)
        }
        // MINGLE_DUMP_ACPI=FOLDER leaves the tables for `iasl -d`.
        if let folder = ProcessInfo.processInfo.environment["MINGLE_DUMP_ACPI"] {
            for (signature, bytes) in tables.bySignature {
                let path = "\(folder)/\(signature.lowercased())\(processorCount).dat"
                try Data(bytes).write(to: URL(fileURLWithPath: path))
            }
        }
    }

    @Test func theFADTHasItsFieldsWhereTheyBelong() throws {
        let tables = try Tables(processorCount: 1)
        let fadt = try tables.get("FACP")
        #expect(fadt.count == 276, "ACPI 6.5, table 5.9")
        #expect(fadt[8] == 6 && fadt[131] == 5)
        func field(_ offset: Int, _ width: Int) -> UInt64 { integer(fadt[offset..<offset + width]) }
        func address(_ offset: Int) -> [UInt64] {
            [
                field(offset, 1), field(offset + 1, 1), field(offset + 2, 1), field(offset + 3, 1),
                field(offset + 4, 8),
            ]
        }
        #expect(field(40, 4) == field(140, 8), "DSDT and X_DSDT")
        #expect(field(36, 4) == 0 && field(132, 8) == 0, "no FACS")
        #expect(field(46, 2) == 9, "SCI_INT")
        #expect(field(48, 4) == 0 && field(52, 1) == 0 && field(53, 1) == 0, "no SMI command")
        #expect(field(56, 4) == 0x600 && field(88, 1) == 4, "PM1a event block")
        #expect(field(64, 4) == 0x604 && field(89, 1) == 2, "PM1a control block")
        #expect(field(76, 4) == 0x608 && field(91, 1) == 4, "PM timer")
        for offset in [60, 68, 72, 80, 84] { #expect(field(offset, 4) == 0) }
        #expect(field(90, 1) == 0 && field(92, 4) == 0)
        #expect(field(96, 2) > 100 && field(98, 2) > 1000, "no C2, no C3")
        #expect(field(108, 1) == 0x32, "century register")
        #expect(field(109, 2) == 0b101, "legacy devices, no 8042, no VGA")
        let flags = field(112, 4)
        let set = (0..<32).filter { flags >> UInt64($0) & 1 == 1 }
        // WBINVD, C1 everywhere, no fixed sleep button, no RTC wake status, 32-bit timer, reset register.
        // Bit 4 clear: the power button is fixed hardware.
        #expect(set == [0, 2, 5, 6, 8, 10])
        #expect(address(116) == [1, 8, 0, 1, 0xCF9] && field(128, 1) == 4, "RESET_REG and its value")
        #expect(address(148) == [1, 32, 0, 2, 0x600])
        #expect(address(172) == [1, 16, 0, 2, 0x604])
        #expect(address(208) == [1, 32, 0, 3, 0x608])
        for offset in [160, 184, 196, 220, 232, 244, 256] { #expect(address(offset) == [0, 0, 0, 0, 0]) }
        #expect(Array(fadt[268..<276]) == Array("MINGLE\0\0".utf8))
    }

    @Test(arguments: [1, 2, 4, 32]) func theMADTNamesEveryProcessor(processorCount: Int) throws {
        let madt = try Tables(processorCount: processorCount).get("APIC")
        #expect(integer(madt[36..<40]) == 0xFEE0_0000)
        #expect(integer(madt[40..<44]) == 1)
        var entries: [[UInt8]] = []
        var position = 44
        while position < madt.count {
            let length = Int(madt[position + 1])
            try #require(length >= 2 && position + length <= madt.count)
            entries.append(Array(madt[position..<position + length]))
            position += length
        }
        let processors = entries.filter { $0[0] == 0 }
        #expect(processors == (0..<UInt8(processorCount)).map { [0, 8, $0, $0, 1, 0, 0, 0] })
        #expect(entries.filter { $0[0] == 1 } == [[1, 12, 0, 0, 0, 0, 0xC0, 0xFE, 0, 0, 0, 0]])
        #expect(
            entries.filter { $0[0] == 2 } == [[2, 10, 0, 9, 9, 0, 0, 0, 0x0D, 0]],
            "the SCI: level, active high")
        #expect(entries.filter { $0[0] == 4 } == [[4, 6, 0xFF, 0, 0, 1]])
        #expect(entries.count == processorCount + 3)
    }

    @Test func theDSDTDescribesSleepAndDevices() throws {
        let dsdt = try Tables(processorCount: 1).get("DSDT")
        #expect(dsdt[8] == 2)
        var parser = AMLParser(Array(dsdt[36...]))
        try parser.terms(path: "\\")
        #expect(parser.names["\\_S5_"] == .package([.integer(5), .integer(5), .integer(0), .integer(0)]))
        #expect(parser.devices == ["\\_SB_.COM1", "\\_SB_.RTC_", "\\_SB_.PEVT"])
        // EISA ids: three letters of five bits, then the number, big endian.
        #expect(parser.names["\\_SB_.COM1._HID"] == .integer(0x0105_D041))
        #expect(parser.names["\\_SB_.RTC_._HID"] == .integer(0x000B_D041))
        #expect(parser.names["\\_SB_.PEVT._HID"] == .string("QEMU0001"))
        for device in parser.devices { #expect(parser.names[device + "._STA"] == .integer(0x0F)) }
        #expect(
            parser.names["\\_SB_.COM1._CRS"]
                == .buffer([0x47, 1, 0xF8, 3, 0xF8, 3, 1, 8, 0x89, 6, 0, 3, 1, 4, 0, 0, 0, 0x79, 0]))
        #expect(
            parser.names["\\_SB_.RTC_._CRS"]
                == .buffer([0x47, 1, 0x70, 0, 0x70, 0, 1, 2, 0x89, 6, 0, 3, 1, 8, 0, 0, 0, 0x79, 0]))
        #expect(parser.names["\\_SB_.PEVT._CRS"] == .buffer([0x47, 1, 5, 5, 5, 5, 1, 1, 0x79, 0]))
    }

    @Test func longDefinitionsAndWindowsOfMemoryDecode() throws {
        let devices = (0..<60).map { index in
            DeviceDescription(
                identity: .init(
                    name: "V" + String(1000 + index).suffix(3), hardwareID: "LNRO0005",
                    uniqueID: UInt8(index)),
                windows: [.init(Layout.virtioWindow(index), NoMemory())],
                interrupt: Layout.virtioInterrupt(index))
        }
        var parser = AMLParser(AML.definitionBlock(devices))
        try parser.terms(path: "\\")
        #expect(parser.devices.count == 60)
        #expect(parser.names["\\_SB_.V059._UID"] == .integer(59))
        #expect(
            parser.names["\\_SB_.V000._CRS"]
                == .buffer([
                    0x86, 9, 0, 1, 0, 0, 0, 0xD0, 0, 0x10, 0, 0, 0x89, 6, 0, 0x0B, 1, 16, 0, 0, 0, 0x79, 0,
                ]))
        #expect(
            parser.names["\\_SB_.V059._CRS"]
                == .buffer([
                    0x86, 9, 0, 1, 0, 0xB0, 3, 0xD0, 0, 0x10, 0, 0, 0x89, 6, 0, 0x0B, 1, 19, 0, 0, 0, 0x79, 0,
                ]))
    }

    /// 64 windows, none of which meets another, RAM or a fixed device, on lines that no standard device has.
    @Test func everyWindowHasAPlaceAndALine() throws {
        let standard = StandardDevices(GuestObserver(), processors: []) { _, _ in }.descriptions
        let windows = (0..<Layout.virtioWindowCount).map(Layout.virtioWindow)
        for (left, right) in zip(windows, windows.dropFirst()) { #expect(left.end <= right.start) }
        let first = try #require(windows.first), last = try #require(windows.last)
        #expect(first.start >= Layout.holeStart && last.end <= Layout.ioapic)
        let lines = (0..<Layout.virtioWindowCount).map { Layout.virtioInterrupt($0) }
        let taken = Set(standard.compactMap { $0.interrupt?.gsi } + [Layout.acpiInterrupt, 0, 2])
        // The IOAPIC of KVM has 24 inputs (KVM_IOAPIC_NUM_PINS).
        #expect(lines.allSatisfy { $0.isShared && $0.gsi < 24 && !taken.contains($0.gsi) })
        #expect(Set(lines[..<8].map(\.gsi)).count == 8, "the first eight have lines of their own")
    }
}

private final class NoMemory: MemoryDevice {
    func read(offset: UInt64, size: Int, by vcpu: any ProcessorContext) -> UInt64 { 0 }
    func write(offset: UInt64, size: Int, value: UInt64, by vcpu: any ProcessorContext) {}
}
