import TestSupport
import Testing

@testable import MingleSupport
import ImageFormats

@Suite struct KernelFileTests {
    let temporary: TemporaryDirectory

    init() throws { temporary = try TemporaryDirectory() }

    static func bytes<Number: FixedWidthInteger>(_ number: Number) -> [UInt8] {
        (0..<MemoryLayout<Number>.size).map { UInt8(truncatingIfNeeded: number >> Number($0 * 8)) }
    }

    /// A note; the first bytes of a descriptor that has room for it are an address within the load segments of `elf`.
    static func note(_ name: String, type: UInt32, descriptorSize: UInt32) -> [UInt8] {
        let descriptor = descriptorSize < 4 ? [] : bytes(UInt32(1 << 20))
        let text = Array(name.utf8) + [0]
        let padding = [UInt8](repeating: 0, count: (4 - text.count % 4) % 4)
        return bytes(UInt32(text.count)) + bytes(descriptorSize) + bytes(type) + text + padding
            + descriptor + [UInt8](repeating: 0, count: (Int(descriptorSize) + 3) & ~3 - descriptor.count)
    }

    /// An ELF file with two load segments and one of notes.
    static func elf(
        notes: [UInt8], machine: UInt16 = 62, memory: UInt64 = 1 << 20, count: UInt16 = 3,
        noteAlignment: UInt64 = 4, noteSize: Int? = nil, address: UInt64 = 1 << 20, noteType: UInt32 = 4
    ) -> [UInt8] {
        func header(
            _ type: UInt32, address: UInt64, offset: UInt64, file: UInt64, memory: UInt64,
            alignment: UInt64 = 4096
        ) -> [UInt8] {
            bytes(type) + bytes(UInt32(5)) + bytes(offset) + bytes(address) + bytes(address) + bytes(file)
                + bytes(memory) + bytes(alignment)
        }
        var file: [UInt8] = [0x7f, 0x45, 0x4c, 0x46, 2, 1, 1, 0] + [UInt8](repeating: 0, count: 8)
        file += bytes(UInt16(2)) + bytes(machine) + bytes(UInt32(1)) + bytes(UInt64(0)) + bytes(UInt64(64))
        file += bytes(UInt64(0)) + bytes(UInt32(0)) + bytes(UInt16(64)) + bytes(UInt16(56)) + bytes(count)
        file += bytes(UInt16(0)) + bytes(UInt16(0)) + bytes(UInt16(0))
        file += header(1, address: address, offset: 0, file: 64, memory: memory)
        file += header(1, address: address + (64 << 20), offset: 0, file: 64, memory: 4096)
        file += header(
            noteType, address: address, offset: 64 + 3 * 56, file: UInt64(noteSize ?? notes.count), memory: 0,
            alignment: noteAlignment)
        return file + notes
    }

    private func inspect(_ bytes: [UInt8]) throws -> KernelFile {
        try KernelFile(path: try temporary.write("kernel", bytes))
    }

    static func bzImage(version: UInt16) -> [UInt8] {
        var file = [UInt8](repeating: 0, count: 4096)
        file.replaceSubrange(0x1FE..<0x207, with: [0x55, 0xAA, 0xEB, 0x66] + Array("HdrS".utf8) + [0])
        (file[0x211], file[0x236]) = (1, 1)
        file.replaceSubrange(0x206..<0x208, with: bytes(version))
        file.replaceSubrange(0x260..<0x264, with: bytes(UInt32(50 << 20)))
        return file
    }

    @Test func payload() throws {
        let notes =
            Self.note("GNU", type: 3, descriptorSize: 20) + Self.note("Mingle", type: 1, descriptorSize: 8)
        let file = try inspect(Self.elf(notes: notes))
        #expect(file.kind == .payload && file.footprintBytes == (1 << 20) + 4096)
    }

    @Test func kernels() throws {
        #expect(try inspect(Self.elf(notes: [])).kind == .vmlinux(hasPVH: false))
        #expect(
            try inspect(Self.elf(notes: Self.note("Xen", type: 18, descriptorSize: 4))).kind
                == .vmlinux(hasPVH: true))
        #expect(
            try inspect(Self.elf(notes: Self.note("Xen", type: 6, descriptorSize: 5))).kind
                == .vmlinux(hasPVH: false))
        let image = try inspect(Self.bzImage(version: 0x20f))
        #expect(image.kind == .bzImage && image.footprintBytes == 50 << 20)
    }

    @Test func whatTheNotesLackCostsThePVHEntryAlone() throws {
        let note = Self.note("Xen", type: 18, descriptorSize: 4)
        let behind = Self.elf(notes: note + [UInt8](repeating: 0xFF, count: 20))
        #expect(try inspect(behind).kind == .vmlinux(hasPVH: true), "the note stands before the damage")
        let damaged: [([UInt8], String)] = [
            (Self.elf(notes: [UInt8](repeating: 0xFF, count: 20) + note), "reaches beyond its segment"),
            (Self.elf(notes: note, noteSize: note.count + 1), "its notes should be"),
            (Self.elf(notes: note, noteSize: .max), "its notes should be"),
            (
                Self.elf(notes: note, address: 2 << 20),
                "names the entry point 0x100000, which is in no segment"
            ),
            (Self.elf(notes: []), "it has no PVH note"),
        ]
        for (bytes, reason) in damaged {
            let file = try inspect(bytes)
            #expect(file.kind == .vmlinux(hasPVH: false))
            for boot in [BootProtocol.auto, .linux64] { try file.check(boot: boot, path: "k") }
            let error = #expect(throws: SupportError.self) { try file.check(boot: .pvh, path: "k") }
            #expect(error?.description.contains(reason) == true, "\(String(describing: error))")
            #expect(error?.description.contains("use one of auto, linux64") == true)
        }
    }

    @Test func programsAreNoKernels() throws {
        let interpreter = Self.elf(notes: Array("/lib64/ld-linux-x86-64.so.2\0".utf8), noteType: 3)
        let error = #expect(throws: SupportError.self) { try inspect(interpreter) }
        #expect(error?.description.contains("a program for an operating system, not a kernel") == true)
        #expect(throws: SupportError.self, "thread-local storage, and no entry that is a kernel's") {
            try inspect(Self.elf(notes: [0], noteType: 7))
        }
        let low = try inspect(Self.elf(notes: [], address: 0))
        let other = #expect(throws: SupportError.self) { try low.check(boot: .auto, path: "k") }
        #expect(other?.description.contains("below 1 MiB") == true)
    }

    /// As the loader does.
    @Test func segmentsThatCannotBeLoadedAreRefused() throws {
        for memory in [UInt64.max, 63, 65 << 20] {
            let error = #expect(throws: SupportError.self) {
                try inspect(Self.elf(notes: [], memory: memory))
            }
            #expect(
                error?.description.contains(memory == 65 << 20 ? "overlap" : "a segment of 64 bytes") == true)
        }
    }

    @Test func damagedFilesAreRefused() {
        let good = Self.elf(notes: [])
        let bad: [[UInt8]] = [
            [], [0x7f], Array("#!/bin/sh\n".utf8), Array(good.prefix(63)), Array(good.prefix(100)),
            Self.elf(notes: [], machine: 40), Self.elf(notes: [], count: 0), Self.elf(notes: [], count: 129),
            [UInt8](repeating: 0, count: 4096), Self.bzImage(version: 0x20b),
            Array(Self.bzImage(version: 0x20f).prefix(0x263)),
        ]
        for bytes in bad { #expect(throws: SupportError.self) { try inspect(bytes) } }
    }

    @Test func anyBytesInNotesAreSafe() throws {
        var generator = SystemRandomNumberGenerator()
        for _ in 0..<200 {
            let notes = (0..<64).map { _ in UInt8(truncatingIfNeeded: generator.next() as UInt64) }
            #expect(try inspect(Self.elf(notes: notes)).kind == .vmlinux(hasPVH: false))
        }
        for size in [UInt32.max, UInt32.max - 3, 1 << 31] {
            let notes = Self.bytes(UInt32(4)) + Self.bytes(size) + Self.bytes(UInt32(1)) + Array("Xen\0".utf8)
            #expect(
                try inspect(Self.elf(notes: notes + Self.bytes(UInt64(0)))).kind == .vmlinux(hasPVH: false))
        }
    }

    @Test func directoriesAndAbsentFiles() {
        #expect(throws: SupportError.self) { try KernelFile(path: temporary.path) }
        #expect(throws: SupportError.self) { try KernelFile(path: temporary.path + "/none") }
    }

    @Test func bootProtocols() throws {
        let pvh = try inspect(Self.elf(notes: Self.note("Xen", type: 18, descriptorSize: 4)))
        let plain = try inspect(Self.elf(notes: []))
        let payload = try inspect(Self.elf(notes: Self.note("Mingle", type: 1, descriptorSize: 8)))
        let packed = try inspect(Self.bzImage(version: 0x20f))
        let possible: [(KernelFile, Set<BootProtocol>)] = [
            (pvh, [.auto, .pvh, .linux64]), (plain, [.auto, .linux64]), (payload, [.auto, .payload]),
            (packed, [.auto, .bzimage, .linux64]),
        ]
        for (file, protocols) in possible {
            for boot in BootProtocol.allCases {
                if protocols.contains(boot) {
                    try file.check(boot: boot, path: "k")
                } else {
                    #expect(throws: SupportError.self) { try file.check(boot: boot, path: "k") }
                }
            }
        }
    }
}
