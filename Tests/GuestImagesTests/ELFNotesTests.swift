import ImageFormats
import FoundationEssentials
import GuestMemory
import TestSupport
import Testing

@testable import GuestImages
@testable import Hypervisor
@testable import MingleSupport

/// How a note segment is laid out.
enum NoteLayout: String, CaseIterable, Sendable {
    /// As Linux writes it: names and descriptors at multiples of 4, whatever the segment's alignment is.
    case four, fourInASegmentOfEight
    /// As the gABI says: their places at multiples of 8.
    case places
    /// As QEMU reads: their sizes rounded up to 8.
    case sizes

    var alignment: UInt64 { self == .four ? 4 : 8 }

    /// The notes of a kernel: some others, then that of PVH, which names this address.
    func bytes(entry: UInt32) -> [UInt8] {
        func add(_ name: String, _ type: UInt32, _ descriptor: [UInt8], to bytes: inout [UInt8]) {
            let text = Array(name.utf8) + [0]
            bytes += Samples.little(UInt32(text.count)) + Samples.little(UInt32(descriptor.count))
            bytes += Samples.little(type)
            pad(&bytes, with: text)
            pad(&bytes, with: descriptor)
        }
        var bytes: [UInt8] = []
        add("Xen", 6, Array("linux\0".utf8), to: &bytes)
        add("GNU", 3, [UInt8](repeating: 0xAB, count: 20), to: &bytes)
        add("Linux", 257, [0, 0, 0, 0], to: &bytes)
        add("Xen", 18, Samples.little(UInt64(entry)), to: &bytes)
        return bytes
    }

    private func pad(_ bytes: inout [UInt8], with field: [UInt8]) {
        bytes += field
        let unit = self == .places || self == .sizes ? 8 : 4
        let length = self == .sizes ? field.count : bytes.count
        bytes += [UInt8](repeating: 0, count: (unit - length % unit) % unit)
    }
}

@Suite struct ELFNotesTests {
    private static let entry: UInt32 = 0x20_0000

    static func kernel(
        _ layout: NoteLayout, behind: [UInt8] = [], code: [UInt8] = [0xF4], entry: UInt32 = entry
    ) -> [UInt8] {
        Samples.elf(segments: [
            .init(address: 0x20_0000, data: code),
            .init(
                type: 4, address: 0, data: layout.bytes(entry: entry) + behind, alignment: layout.alignment),
        ])
    }

    /// The VMM and the command line tool find the same.
    @Test(arguments: NoteLayout.allCases, [[], [0xFF], [UInt8](repeating: 0xFF, count: 24)] as [[UInt8]])
    func everyReaderFindsTheNote(layout: NoteLayout, behind: [UInt8]) throws {
        try withTemporaryDirectory { directory in
            let bytes = Self.kernel(layout, behind: behind)
            let path = "\(directory)/kernel"
            try FileSystem.write(bytes, to: path)
            let file = try openImage(path)
            #expect(try ELFImage(file, name: "kernel").notes.pvhEntry == Self.entry)
            #expect(try KernelFile(path: path).kind == .vmlinux(hasPVH: true))
        }
    }

    @Test func damageEndsTheSearchAndIsSaid() {
        let good = NoteLayout.four.bytes(entry: 1)
        let bad = Samples.little(UInt32.max) + Samples.little(UInt32(4)) + Samples.little(UInt32(1))
        let behind = ELFNotes.search(name: "Xen", type: 18, in: good + bad, alignment: 4)
        #expect(behind.descriptors == [Samples.little(UInt64(1))])
        #expect(behind.damage == "a note at byte \(good.count) reaches beyond its segment")
        let before = ELFNotes.search(name: "Xen", type: 18, in: bad + good, alignment: 8)
        #expect(before.descriptors.isEmpty && before.damage == "a note at byte 0 reaches beyond its segment")
        let other = ELFNotes.search(name: "Xen", type: 19, in: good, alignment: 4)
        #expect(other == ELFNotes.Search())
        #expect(ELFNotes.search(name: "Xe", type: 18, in: good, alignment: 4).descriptors.isEmpty)
        // The last note may lack the padding behind its descriptor, and a name its NUL.
        let short = Samples.little(UInt32(3)) + Samples.little(UInt32(5)) + Samples.little(UInt32(18))
        let last = ELFNotes.search(
            name: "Xen", type: 18, in: short + Array("Xen\0".utf8) + [1, 2, 3, 4, 5], alignment: 4)
        #expect(last.descriptors == [[1, 2, 3, 4, 5]] && last.damage == nil)
    }

    @Test func anyBytesAreSafe() {
        var random = SeededGenerator(seed: 18)
        for _ in 0..<2000 {
            let bytes = (0..<Int.random(in: 0..<80, using: &random)).map { _ in
                Bool.random(using: &random) ? UInt8.random(in: 0...255, using: &random) : 0
            }
            for alignment: UInt64 in [0, 1, 4, 8, .max] {
                let found = ELFNotes.search(name: "Xen", type: 18, in: bytes, alignment: alignment)
                #expect(found.descriptors.allSatisfy { $0.count <= bytes.count })
            }
        }
    }
}

extension BootTests {
    /// What QEMU enters, which is what our readers are to find.
    @Suite struct EnteredByQEMUTests {
        /// Behind a breakpoint for the ELF entry: `mov dx, 0xd00; mov al, 3; out dx, al; hlt; jmp` to the hlt.
        private static let code: [UInt8] = [0xCC, 0x66, 0xBA, 0x00, 0x0D, 0xB0, 0x03, 0xEE, 0xF4, 0xEB, 0xFD]

        @Test(arguments: [NoteLayout.four, .sizes], [[], [UInt8](repeating: 0xFF, count: 24)] as [[UInt8]])
        func theSameNoteIsFound(layout: NoteLayout, behind: [UInt8]) throws {
            try withTemporaryDirectory { directory in
                let entry: UInt32 = 0x20_0001
                let bytes = ELFNotesTests.kernel(layout, behind: behind, code: Self.code, entry: entry)
                let path = "\(directory)/kernel"
                try FileSystem.write(bytes, to: path)
                let error = failure { () throws(GuestImagesError) in
                    try Tool.run(
                        [
                            "timeout", "60", "qemu-system-x86_64", "-M", "microvm", "-accel", "tcg", "-m",
                            "32",
                            "-nodefaults", "-no-user-config", "-display", "none", "-no-reboot", "-device",
                            "isa-debug-exit,iobase=0xd00", "-kernel", path,
                        ], scratch: directory)
                }
                guard case .toolFailed(_, let status, let words) = error else {
                    Issue.record("\(String(describing: error))")
                    return
                }
                #expect(status == 7, "\(words)")
                let file = try openImage(path)
                #expect(try ELFImage(file, name: "kernel").notes.pvhEntry == entry)
            }
        }
    }
}
