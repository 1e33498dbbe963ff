import Foundation
import GuestMemory
import LinuxHost
import TestSupport
import Testing

@testable import Hypervisor
import ImageFormats

/// What a guest reads first. The expected bytes are written from the documents, not from the code.
@Suite struct BootInformationTests {
    /// Sizes around the hole, and the entries of the memory map: start, end, type.
    static let maps: [(UInt64, [[UInt64]])] = {
        let reserved: [[UInt64]] = [[0xA_0000, 0x10_0000, 2], [0xFEC0_0000, 4 * gib, 2]]
        func map(_ low: UInt64, _ high: UInt64?) -> [[UInt64]] {
            let ram = [[0, 0xA_0000, 1], reserved[0], [0x10_0000, low, 1], reserved[1]]
            return high.map { ram + [[4 * gib, $0, 1]] } ?? ram
        }
        return [
            (128 * mib, map(128 * mib, nil)), (3 * gib - 4096, map(3 * gib - 4096, nil)),
            (3 * gib, map(3 * gib, nil)),
            (3 * gib + 4096, map(3 * gib, 4 * gib + 4096)), (4 * gib, map(3 * gib, 5 * gib)),
            (5 * gib, map(3 * gib, 6 * gib)),
        ]
    }()

    @Test(arguments: maps) func theMemoryMapNamesAllRAMAndNoMore(size: UInt64, expected: [[UInt64]]) throws {
        let memory = try makeMemory(size)
        let entries = MemoryMap(of: memory).entries
        #expect(
            entries.map { [$0.range.start.value, $0.range.end.value, UInt64($0.kind.rawValue)] } == expected)
        let ram = entries.filter { $0.kind == .ram }
        #expect(ram.allSatisfy { memory.isRAM($0.range) })
        #expect(ram.reduce(0) { $0 + $1.range.sizeInBytes } == size - 0x6_0000)
        for (left, right) in zip(entries, entries.dropFirst()) {
            #expect(left.range.end <= right.range.start)
        }
    }

    @Test(arguments: maps) func pvhStartInfo(size: UInt64, expectedMap: [[UInt64]]) throws {
        let bench = try LoaderBench(memorySize: size)
        let (first, second) = (
            try bench.directory.write("a", [UInt8](repeating: 0xA1, count: 5001)),
            try bench.directory.write("b", [UInt8](repeating: 0xB2, count: 3))
        )
        let kernel = try bench.directory.write("kernel", ELFFile.pvh().bytes)
        let entry = try bench.load(path: kernel, initrds: [first, second], commandLine: "panic=-1 x")
        #expect(entry == EntryPoint(address: 0x20_0000, mode: .pvh(startInfo: GuestAddress(0x6000))))

        let info = try bench.memory.read(GuestAddress(0x6000), count: 56)
        #expect(integer(info[0..<4]) == 0x336E_C578)
        #expect(integer(info[4..<8]) == 1, "version 1 has a memory map")
        #expect(integer(info[8..<12]) == 0)
        #expect(integer(info[12..<16]) == 1, "one module")
        let module = try bench.memory.read(GuestAddress(integer(info[16..<24])), count: 32)
        let commandLine = try bench.memory.read(GuestAddress(integer(info[24..<32])), count: 11)
        #expect(commandLine == Array("panic=-1 x".utf8) + [0])
        #expect(
            try bench.memory.read(GuestAddress(integer(info[32..<40])), count: 8) == Array("RSD PTR ".utf8))
        let map = GuestAddress(integer(info[40..<48]))
        #expect(integer(info[48..<52]) == UInt64(expectedMap.count))
        #expect(integer(info[52..<56]) == 0)
        for (index, expected) in expectedMap.enumerated() {
            let entry = try bench.memory.read(GuestAddress(map.value + UInt64(index) * 24), count: 24)
            #expect(
                [integer(entry[0..<8]), integer(entry[8..<16]), integer(entry[16..<24])] == [
                    expected[0], expected[1] - expected[0], expected[2],
                ])
        }
        // The initrd: both archives, the second behind four zeros and more up to a multiple of four, in a page-aligned
        // place below 2 GiB.
        let (start, length) = (integer(module[0..<8]), integer(module[8..<16]))
        #expect(integer(module[16..<32]) == 0)
        #expect(length == 5008 + 3)
        #expect(Page.isAligned(start))
        #expect(start + 8192 == min(2 * gib, expectedMap[2][1]))
        let bytes = try bench.memory.read(GuestAddress(start), count: Int(length))
        #expect(
            bytes == [UInt8](repeating: 0xA1, count: 5001) + [UInt8](repeating: 0, count: 7) + [
                0xB2, 0xB2, 0xB2,
            ])
        #expect(try bench.memory.read(GuestAddress(0x20_0000), count: 4) == [0xF4, 1, 2, 3])
    }

    @Test(arguments: maps) func bootParametersOfABzImage(size: UInt64, expectedMap: [[UInt64]]) throws {
        let bench = try LoaderBench(memorySize: size)
        let initrd = try bench.directory.write("a", [UInt8](repeating: 0xA1, count: 5001))
        let image = BzImageFile()
        let kernel = try bench.directory.write("kernel", image.bytes)
        let entry = try bench.load(path: kernel, initrds: [initrd], commandLine: "quiet")
        #expect(
            entry
                == EntryPoint(
                    address: 0x100_0200,
                    mode: .linux64(bootParameters: GuestAddress(0x7000), pageTables: GuestAddress(0x10000))))
        #expect(try bench.memory.read(GuestAddress(0x100_0000), count: image.kernel.count) == image.kernel)

        let page = try bench.memory.read(GuestAddress(0x7000), count: 4096)
        // The setup header is copied, but for what the loader fills in.
        var header = Array(image.bytes[0x1F1..<0x268])
        func put(_ value: UInt64, _ width: Int, at offset: Int) {
            header.replaceSubrange(offset - 0x1F1..<offset - 0x1F1 + width, with: littleEndian(value, width))
        }
        let start = min(2 * gib, expectedMap[2][1]) - 8192
        put(0xFF, 1, at: 0x210)
        put(start, 4, at: 0x218)
        put(5001, 4, at: 0x21C)
        put(0x8000, 4, at: 0x228)
        #expect(Array(page[0x1F1..<0x268]) == header)
        #expect(integer(page[0x70..<0x78]) == 0xE_0000, "acpi_rsdp_addr")
        #expect(Int(page[0x1E8]) == expectedMap.count)
        for (index, expected) in expectedMap.enumerated() {
            let entry = page[0x2D0 + index * 20..<0x2D0 + index * 20 + 20]
            #expect(integer(entry.prefix(8)) == expected[0])
            #expect(integer(entry.dropFirst(8).prefix(8)) == expected[1] - expected[0])
            #expect(integer(entry.suffix(4)) == expected[2])
        }
        #expect(page[(0x2D0 + expectedMap.count * 20)...].allSatisfy { $0 == 0 })
        #expect(page[0..<0x70].allSatisfy { $0 == 0 } && page[0x78..<0x1E8].allSatisfy { $0 == 0 })
        #expect(try bench.memory.read(GuestAddress(0x8000), count: 6) == Array("quiet".utf8) + [0])
    }

    @Test func bootParametersOfAVmlinux() throws {
        let bench = try LoaderBench()
        let entry = try bench.load(ELFFile.pvh(entry: 0x20_0001).bytes, boot: .linux64)
        #expect(entry.address == 0x20_0000, "by the ELF entry, not by the note")
        let page = try bench.memory.read(GuestAddress(0x7000), count: 4096)
        #expect(integer(page[0x1FE..<0x200]) == 0xAA55)
        #expect(Array(page[0x202..<0x206]) == Array("HdrS".utf8))
        #expect(integer(page[0x206..<0x208]) == 0x020F)
        #expect(page[0x210] == 0xFF && page[0x211] == 1)
        #expect(integer(page[0x218..<0x220]) == 0, "no initrd")
    }

    @Test(arguments: [
        (UInt64(64 << 20), UInt64(64 << 20), UInt64(0), UInt64(0)), (5 << 30, 3 << 30, 4 << 30, 6 << 30),
    ])
    func payloadInformation(size: UInt64, lowEnd: UInt64, highStart: UInt64, highEnd: UInt64) throws {
        let directory = try TemporaryDirectory()
        var file = ELFFile.payload()
        file.segments.append(.init(address: 0x30_0000, bytes: [1], sizeInMemory: 0x1001))
        var configuration = VirtualMachineConfiguration()
        configuration.kernelPath = try directory.write("payload", file.bytes)
        configuration.processorCount = 3
        configuration.payload.arguments = "size=5 näme=x"
        configuration.payload.guestIndex = 0xA1B2_C3D4
        configuration.payload.seed = 0x1122_3344_5566_7788
        let memory = try makeMemory(size)
        let entry = try GuestLoader(
            configuration: configuration, memory: memory, timestampFrequency: 2_345_678_000
        ).load()

        // guests/README.md, "Boot information page".
        var expected = Array("MINGLEPB".utf8)
        expected += littleEndian(1, 4) + littleEndian(3, 4)
        expected +=
            littleEndian(size, 8) + littleEndian(lowEnd, 8) + littleEndian(highStart, 8)
            + littleEndian(highEnd, 8)
        // Stacks of 64 KiB begin at the page behind the image.
        expected += littleEndian(0x30_2000 + 3 * 0x1_0000, 8)
        expected +=
            littleEndian(0xA1B2_C3D4, 4) + littleEndian(14, 4) + littleEndian(0x1122_3344_5566_7788, 8)
        expected += littleEndian(0x2000, 8) + littleEndian(2_345_678_000, 8)
        expected += [UInt8](repeating: 0, count: 4096 - expected.count)
        #expect(try memory.read(GuestAddress(0x1000), count: 4096) == expected)
        #expect(try memory.read(GuestAddress(0x2000), count: 15) == Array("size=5 näme=x".utf8) + [0])
        #expect(try memory.read(GuestAddress(0), count: 4096).allSatisfy { $0 == 0 })

        let mode = EntryPoint.Mode.payload(
            information: GuestAddress(0x1000), stacks: GuestAddress(0x30_2000),
            pageTables: GuestAddress(0x10000))
        #expect(entry == EntryPoint(address: 0x20_0000, mode: mode))
        for index in 0..<3 {
            let pointer = PayloadBoot.stackPointer(index, stacks: GuestAddress(0x30_2000))
            #expect(pointer == 0x30_2000 + UInt64(index + 1) * 0x1_0000 - 8)
            #expect(pointer % 16 == 8)
            #expect(try memory.load(UInt64.self, at: GuestAddress(pointer)) == 0, "the return address")
        }
    }

    /// Intel SDM vol. 3, 3.4.5 and 7.2.3: segment descriptors and the 64-bit TSS descriptor, by field.
    @Test func descriptorTables() {
        struct Fields: Equatable {
            let base, limit, type, isCode, privilege, long, big, granularity, present: UInt64
            init(_ descriptor: UInt64) {
                base = descriptor >> 16 & 0xFF_FFFF | (descriptor >> 56 & 0xFF) << 24
                limit = descriptor & 0xFFFF | (descriptor >> 48 & 0xF) << 16
                type = descriptor >> 40 & 0xF
                isCode = descriptor >> 44 & 1
                privilege = descriptor >> 45 & 3
                present = descriptor >> 47 & 1
                long = descriptor >> 53 & 1
                big = descriptor >> 54 & 1
                granularity = descriptor >> 55 & 1
            }
        }
        func table(_ mode: EntryPoint.Mode) -> [UInt64] {
            let bytes = VCPUState.descriptorTable(for: mode)
            return stride(from: 0, to: bytes.count, by: 8).map { integer(bytes[$0..<$0 + 8]) }
        }
        let somewhere = GuestAddress(0)
        let pvh = table(.pvh(startInfo: somewhere))
        let linux = table(.linux64(bootParameters: somewhere, pageTables: somewhere))
        let payload = table(.payload(information: somewhere, stacks: somewhere, pageTables: somewhere))
        for table in [pvh, linux, payload] { #expect(table.count == 5 && table[0] == 0) }
        func expectFlat(_ descriptor: UInt64, type: UInt64, privilege: UInt64, long: UInt64) {
            let fields = Fields(descriptor)
            #expect(
                fields.base == 0 && fields.limit == 0xF_FFFF && fields.granularity == 1 && fields.present == 1
            )
            #expect(fields.type == type && fields.isCode == 1 && fields.privilege == privilege)
            #expect(fields.long == long && fields.big == 1 - long)
        }
        expectFlat(pvh[1], type: 0xB, privilege: 0, long: 0)
        expectFlat(pvh[2], type: 0x3, privilege: 0, long: 0)
        expectFlat(linux[2], type: 0xB, privilege: 0, long: 1)
        expectFlat(linux[3], type: 0x3, privilege: 0, long: 0)
        expectFlat(payload[1], type: 0xB, privilege: 3, long: 1)
        expectFlat(payload[2], type: 0x3, privilege: 3, long: 0)
        let task = Fields(payload[3])
        #expect(
            task.base == 0x4000 && task.limit == 0x68 + 8192 && task.granularity == 0 && task.present == 1)
        #expect(task.type == 0xB && task.isCode == 0 && task.privilege == 0)
        #expect(payload[4] == 0, "the base's upper half")
    }

    @Test func theTaskStateOpensEveryPort() throws {
        // 104 bytes of TSS whose last word says where the map begins, a bit a port, and a byte of ones.
        var expected = [UInt8](repeating: 0, count: 104 + 8192)
        expected[102] = 0x68
        #expect(VCPUState.taskState() == expected + [0xFF])
        let bench = try LoaderBench()
        _ = try bench.load(ELFFile.payload().bytes)
        #expect(try bench.memory.read(GuestAddress(0x4000), count: 8297) == expected + [0xFF])
        #expect(try bench.memory.read(GuestAddress(0x3000), count: 8) == [UInt8](repeating: 0, count: 8))
        #expect(try bench.memory.load(UInt64.self, at: GuestAddress(0x3018)) & 0xFFFF == 8296)
    }
}
