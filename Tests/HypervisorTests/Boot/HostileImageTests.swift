import Foundation
import GuestMemory
import TestSupport
import Testing

@testable import Hypervisor
import ImageFormats

/// Loads a file as a kernel into memory of its own, or of the caller.
struct LoaderBench {
    let directory: TemporaryDirectory
    let memory: GuestMemory

    init(memorySize: UInt64 = 64 * mib) throws {
        directory = try TemporaryDirectory()
        memory = try makeMemory(memorySize)
    }

    func load(
        path: String, boot: BootProtocol = .auto, initrds: [String] = [],
        commandLine: String = "console=ttyS0",
        arguments: String = "", processors: Int = 2
    ) throws(HypervisorError) -> EntryPoint {
        var configuration = VirtualMachineConfiguration()
        configuration.kernelPath = path
        configuration.bootProtocol = boot
        configuration.initrdPaths = initrds
        configuration.commandLine = commandLine
        configuration.processorCount = processors
        configuration.payload.arguments = arguments
        return try GuestLoader(
            configuration: configuration, memory: memory,
            devices: StandardDevices(GuestObserver(), processors: []) { _, _ in }.descriptions,
            timestampFrequency: 1
        ).load()
    }

    func load(_ bytes: [UInt8], boot: BootProtocol = .auto, initrds: [String] = []) throws -> EntryPoint {
        try load(path: directory.write("kernel", bytes), boot: boot, initrds: initrds)
    }

    /// The message of a `badImage`; anything else is an issue.
    func refusal(_ bytes: [UInt8], boot: BootProtocol = .auto, initrds: [String] = []) throws -> String {
        do { _ = try load(bytes, boot: boot, initrds: initrds) } catch HypervisorError.badImage(let text) {
            return text
        }
        Issue.record("the image was taken")
        return ""
    }
}

@Suite struct HostileImageTests {
    @Test func whatIsNoFileIsRefusedAtOnce() throws {
        let bench = try LoaderBench()
        let fifo = bench.directory.path("fifo")
        try #require(mkfifo(fifo, 0o600) == 0)
        let kernel = try bench.directory.write("payload", BzImageFile().bytes)
        withWatchdog(seconds: 60, "loading what is no file") {
            for path in [fifo, bench.directory.path, "/dev/zero", "/dev/null"] {
                let refusal = HypervisorError.badImage("\(path): not a regular file")
                #expect(throws: refusal) { try bench.load(path: path) }
                #expect(throws: refusal) { try bench.load(path: kernel, initrds: [path]) }
            }
        }
        let missing = bench.directory.path("missing")
        #expect(throws: HypervisorError.badImage("\(missing): No such file or directory")) {
            try bench.load(path: missing)
        }
    }

    @Test(arguments: BootProtocol.allCases) func emptyAndTinyFilesAreRefused(boot: BootProtocol) throws {
        let bench = try LoaderBench()
        for size in [0, 1, 3, 4, 63, 64, 512] {
            #expect(try bench.refusal([UInt8](repeating: 0x7F, count: size), boot: boot).contains("kernel: "))
            #expect(try !bench.refusal(Array(ELFFile().bytes.prefix(min(size, 100))), boot: boot).isEmpty)
        }
    }

    @Test func everyTruncationOfAnELFIsRefused() throws {
        let bench = try LoaderBench()
        for (file, boot) in [(ELFFile.payload(), BootProtocol.payload), (ELFFile.pvh(), .pvh)] {
            let bytes = file.bytes
            _ = try bench.load(bytes, boot: boot)
            for length in 0..<bytes.count {
                #expect(try !bench.refusal(Array(bytes.prefix(length)), boot: boot).isEmpty)
            }
        }
    }

    @Test func everyTruncationOfABzImagesHeaderIsRefused() throws {
        let bench = try LoaderBench()
        let bytes = BzImageFile().bytes
        _ = try bench.load(bytes)
        for length in 0...BzImageFile.setupSize + 0x200 {
            #expect(try !bench.refusal(Array(bytes.prefix(length))).isEmpty)
        }
        _ = try bench.load(Array(bytes.prefix(BzImageFile.setupSize + 0x201)))
    }

    @Test func segmentsThatCannotBeAreRefused() throws {
        let bench = try LoaderBench()
        func refusal(_ change: (inout ELFFile) -> Void) throws -> String {
            var file = ELFFile.payload()
            change(&file)
            return try bench.refusal(file.bytes)
        }
        let second = ELFFile.Segment(address: 0x20_0003, bytes: [1])
        #expect(try refusal { $0.segments.append(second) }.contains("overlap"))
        #expect(try refusal { $0.segments.insert(second, at: 0) }.contains("overlap"))
        #expect(try refusal { $0.segments[0].sizeInMemory = 3 }.contains("a segment of 4 bytes in 3"))
        #expect(try refusal { $0.segments[0].sizeInMemory = UInt64.max }.contains("a segment of 4 bytes"))
        #expect(try refusal { $0.segments[0].address = UInt64.max - 2 }.contains("a segment of 4 bytes"))
        #expect(try refusal { $0.segments[0].sizeInMemory = 64 * mib }.contains("does not fit"))
        #expect(try refusal { $0.segments[0].address = 64 * mib - 3 }.contains("does not fit"))
        #expect(try refusal { $0.segments[0].address = mib - 4 }.contains("not above 1 MiB"))
        #expect(try refusal { $0.segments[0].address = 3 * gib - 4 }.contains("give it more --memory"))
        #expect(try refusal { $0.segments[0].address = 3 * gib - 3 }.contains("whatever --memory is"))
        #expect(try refusal { $0.segments[0].fileOffset = UInt64.max }.contains("truncated"))
        #expect(try refusal { $0.segments[0].fileOffset = UInt64.max - 3 }.contains("truncated"))
        #expect(
            try refusal {
                $0.segments[0].sizeInFile = UInt64.max
                $0.segments[0].address = 0
            }.contains("truncated"))
        #expect(try refusal { $0.segments = [] }.contains("nothing to load"))
        #expect(
            try refusal {
                $0.segments[0].sizeInMemory = 0; $0.segments[0].bytes = []
            }.contains("nothing to load"))
        #expect(try refusal { $0.entry = 0x20_0004 }.contains("entry point"))
        #expect(try refusal { $0.entry = 0x1F_FFFF }.contains("entry point"))
        #expect(try refusal { $0.entry = UInt64.max }.contains("entry point"))
    }

    @Test func countsThatCannotBeAreRefused() throws {
        let bench = try LoaderBench()
        func refusal(_ value: UInt64, width: Int, at offset: Int) throws -> String {
            var bytes = ELFFile.payload().bytes
            bytes.replaceSubrange(offset..<offset + width, with: littleEndian(value, width))
            return try bench.refusal(bytes)
        }
        #expect(try refusal(0, width: 2, at: 56).contains("0 program headers"))
        #expect(try refusal(129, width: 2, at: 56).contains("129 program headers"))
        #expect(try refusal(128, width: 2, at: 56).contains("truncated"))
        #expect(try refusal(0xFFFF, width: 2, at: 56).contains("65535 program headers"))
        #expect(try refusal(55, width: 2, at: 54).contains("of 55 bytes"))
        #expect(try refusal(UInt64.max, width: 8, at: 32).contains("truncated"))
        #expect(try refusal(UInt64.max - 100, width: 8, at: 32).contains("truncated"))
        #expect(try refusal(1, width: 1, at: 4).contains("64-bit"))
        #expect(try refusal(2, width: 1, at: 5).contains("little-endian"))
        #expect(try refusal(183, width: 2, at: 18).contains("x86-64"))
        #expect(try refusal(1, width: 2, at: 16).contains("ELF type 1"))
    }

    @Test func notesThatLieAreRefused() throws {
        let bench = try LoaderBench()
        func refusal(_ notes: [UInt8]) throws -> String {
            var file = ELFFile.payload()
            file.rawNotes = notes
            return try bench.refusal(file.bytes, boot: .payload)
        }
        func note(_ nameSize: UInt64, _ size: UInt64, _ rest: [UInt8]) -> [UInt8] {
            littleEndian(nameSize, 4) + littleEndian(size, 4) + littleEndian(1, 4) + rest
        }
        let name = Array("Mingle\0\0".utf8)
        #expect(try refusal(note(7, 9, name + [1, 0, 0, 0, 0, 0, 0, 0])).contains("beyond its segment"))
        #expect(try refusal([0, 0, 0, 0] + note(7, 8, name)).contains("no Mingle note"))
        #expect(try refusal(note(0xFFFF_FFFF, 8, name)).contains("beyond its segment"))
        #expect(try refusal(note(7, 0xFFFF_FFFF, name)).contains("beyond its segment"))
        #expect(try refusal(note(0xFFFF_FFFD, 0xFFFF_FFFF, name)).contains("beyond its segment"))
        #expect(try refusal(note(7, 0, name)).contains("8 bytes"))
        #expect(try refusal(note(7, 4, name + [1, 0, 0, 0])).contains("8 bytes"))
        #expect(try refusal(note(7, 8, name + [1, 0, 0, 0, 1, 0, 0, 0])).contains("flags 0"))
        #expect(try refusal(note(7, 8, name + [2, 0, 0, 0, 0, 0, 0, 0])).contains("ABI 2"))
        #expect(try refusal([1, 2, 3]).contains("no Mingle note"))
        // Eleven bytes hold no note; a note may lack the padding behind it.
        #expect(try refusal([UInt8](repeating: 0, count: 11)).contains("no Mingle note"))
        #expect(try refusal([UInt8](repeating: 0, count: (1 << 20) + 4)).contains("notes of"))
    }

    @Test func otherNotesDoNoHarm() throws {
        let bench = try LoaderBench()
        var file = ELFFile.payload()
        file.notes.insert(.init(name: "GNU", type: 1, descriptor: [1, 2, 3]), at: 0)
        file.notes.append(.init(name: "", type: 7, descriptor: []))
        let entry = try bench.load(file.bytes)
        guard case .payload = entry.mode else {
            Issue.record("a payload was taken for \(entry.mode)")
            return
        }
    }

    /// What is wrong with notes costs the entry that they name, and no other.
    @Test func damagedNotesLeaveTheOtherEntry() throws {
        let bench = try LoaderBench()
        let note = ELFFile.bytes(of: [.init(name: "Xen", type: 18, descriptor: littleEndian(0x20_0001, 4))])
        let damage = littleEndian(4, 4) + littleEndian(0xFFFF_FFFF, 4) + littleEndian(1, 4)
        func file(_ notes: [UInt8], _ change: (inout ELFFile) -> Void = { _ in }) -> [UInt8] {
            var file = ELFFile()
            file.rawNotes = notes
            change(&file)
            return file.bytes
        }
        for bytes in [
            file(note + damage), file(note + [1, 2, 3]), file(note + [UInt8](repeating: 0, count: 40)),
        ] {
            let entry = try bench.load(bytes)
            #expect(entry == EntryPoint(address: 0x20_0001, mode: .pvh(startInfo: GuestAddress(0x6000))))
            #expect(try bench.load(bytes, boot: .pvh) == entry)
            #expect(try bench.load(bytes, boot: .linux64).address == 0x20_0000)
        }
        let lost: [([UInt8], String)] = [
            (file(damage + note), "has no PVH note (a note at byte 0 reaches beyond its segment)"),
            (file([UInt8](repeating: 0, count: (1 << 20) + 4)), "has no PVH note (notes of 1048580 bytes"),
            (Array(file(note).dropLast()), "has no PVH note (its notes should be 20 bytes"),
            (ELFFile.pvh(entry: 0x30_0000).bytes, "entry point 0x300000, which is in no segment"),
            (ELFFile(notes: [.init(name: "Xen", type: 18, descriptor: [1, 2])]).bytes, "less than 4 bytes"),
            (file([]), "has no PVH note: "),
        ]
        for (bytes, reason) in lost {
            for boot in [BootProtocol.auto, .linux64] {
                let entry = try bench.load(bytes, boot: boot)
                #expect(entry.address == 0x20_0000)
                guard case .linux64 = entry.mode else {
                    Issue.record("entered as \(entry.mode)")
                    continue
                }
            }
            let text = try bench.refusal(bytes, boot: .pvh)
            #expect(text.contains(reason) && text.contains("--boot linux64"), "\(text)")
        }
    }

    @Test func programsAreNoKernels() throws {
        let bench = try LoaderBench()
        var bytes = ELFFile.payload().bytes
        // The second program header, that of the notes, becomes PT_INTERP.
        bytes.replaceSubrange(120..<124, with: littleEndian(3, 4))
        #expect(try bench.refusal(bytes).contains("a program for an operating system, not a kernel"))
    }

    @Test func linuxEntriesOutsideTheImageAreRefused() throws {
        let bench = try LoaderBench()
        var plain = ELFFile()
        plain.entry = 0xFFFF_FFFF_8100_0000
        #expect(try bench.refusal(plain.bytes).contains("entry point"))
        #expect(try bench.refusal(ELFFile().bytes, boot: .pvh).contains("no PVH note"))
        #expect(try bench.refusal(ELFFile.pvh().bytes, boot: .payload).contains("no Mingle note"))
        #expect(
            try bench.refusal(ELFFile.pvh().bytes + [UInt8](repeating: 0, count: 1024), boot: .bzimage)
                .contains("neither"))
    }

    @Test func bzImagesThatCannotBeLoadedAreRefused() throws {
        let bench = try LoaderBench()
        func refusal(_ value: UInt64, width: Int, at offset: Int) throws -> String {
            var bytes = BzImageFile().bytes
            bytes.replaceSubrange(offset..<offset + width, with: littleEndian(value, width))
            return try bench.refusal(bytes)
        }
        #expect(try refusal(0x020B, width: 2, at: 0x206).contains("protocol 2.11"))
        #expect(try refusal(0, width: 1, at: 0x211).contains("64-bit entry"))
        #expect(try refusal(0, width: 2, at: 0x236).contains("64-bit entry"))
        #expect(try refusal(0, width: 2, at: 0x1FE).contains("neither"))
        #expect(try refusal(255, width: 1, at: 0x1F1).contains("truncated"))
        #expect(try refusal(0, width: 8, at: 0x258).contains("wants to be loaded at 0x0"))
        #expect(try refusal(3 * gib, width: 8, at: 0x258).contains("wants to be loaded"))
        #expect(try refusal(0x100_0001, width: 8, at: 0x258).contains("wants to be loaded"))
        #expect(try refusal(UInt64.max, width: 8, at: 0x258).contains("wants to be loaded"))
        #expect(try refusal(0xFFFF_FFFF, width: 4, at: 0x260).contains("more --memory"))
        #expect(try refusal(48 * mib + 1, width: 4, at: 0x260).contains("more --memory"))
        #expect(try refusal(0x20, width: 1, at: 0x201).contains("header ends"))
    }

    @Test func initrdsThatDoNotFitAreRefused() throws {
        let bench = try LoaderBench()
        let empty = try bench.directory.write("empty", [])
        let small = try bench.directory.write("small", [1, 2, 3, 4, 5])
        let large = bench.directory.path("large")
        try #require(FileManager.default.createFile(atPath: large, contents: nil))
        // From the kernel's end at 20 MiB to the end of memory there are 44 MiB.
        try #require(truncate(large, Int(44 * mib)) == 0)
        _ = try bench.load(BzImageFile().bytes, initrds: [large])
        #expect(try bench.refusal(BzImageFile().bytes, initrds: [large, small]).contains("does not fit"))
        #expect(try bench.refusal(BzImageFile().bytes, initrds: [small, empty]).contains("empty"))
        #expect(
            try bench.refusal(BzImageFile(initrdLimit: 0x140_0FFF).bytes, initrds: [large]).contains(
                "0x1401000"))
        #expect(
            try bench.refusal(BzImageFile(initrdLimit: 0).bytes, initrds: [small]).contains("does not fit"))
        // No limit at all must not wrap around.
        _ = try bench.load(BzImageFile(initrdLimit: 0xFFFF_FFFF).bytes, initrds: [small])
        try #require(truncate(large, 1 << 62) == 0 || errno == EFBIG)
        #expect(
            try bench.refusal(BzImageFile().bytes, initrds: [large, large, large]).contains("does not fit"))
        #expect(throws: HypervisorError.invalidConfiguration("a payload takes no initrd")) {
            try bench.load(ELFFile.payload().bytes, initrds: [small])
        }
    }

    @Test func configurationsThatCannotBeAreRefused() throws {
        let bench = try LoaderBench()
        let kernel = try bench.directory.write("bz", BzImageFile().bytes)
        _ = try bench.load(path: kernel, commandLine: String(repeating: "a", count: 2047))
        for text in [String(repeating: "a", count: 2048), "a\0b"] {
            #expect(throws: HypervisorError.self) { try bench.load(path: kernel, commandLine: text) }
        }
        let payload = try bench.directory.write("payload", ELFFile.payload().bytes)
        _ = try bench.load(path: payload, arguments: String(repeating: "a", count: 4095))
        for text in [String(repeating: "a", count: 4096), "a\0b"] {
            #expect(throws: HypervisorError.self) { try bench.load(path: payload, arguments: text) }
        }
        let small = try LoaderBench(memorySize: 16 * mib - 4096)
        #expect(
            throws: HypervisorError.invalidConfiguration(
                "15 MiB of memory are too few for a Linux guest: give it at least 32")
        ) { try small.load(path: kernel) }
        // The image's page, 64 KiB of stack, and at least a byte that is free.
        let tight = try LoaderBench(memorySize: 2 * mib + 17 * 4096)
        #expect(throws: HypervisorError.self) { try tight.load(path: payload, processors: 1) }
        let enough = try LoaderBench(memorySize: 2 * mib + 18 * 4096)
        _ = try enough.load(path: payload, processors: 1)
    }
}
