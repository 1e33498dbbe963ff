import FoundationEssentials
import Testing

@testable import GuestImages

@Suite struct BzImageTests {
    private static let kernel = Samples.vmlinux()

    @Test(arguments: Compression.allCases)
    func unpacksEveryFormat(_ compression: Compression) throws {
        let image = try BzImage(Samples.bzImage(Self.kernel, compression))
        #expect(image.compression == compression)
        #expect(image.protocolVersion == 0x020F)
        #expect(image.kernelVersion == "6.1.0-test (somebody)")
        #expect(image.unpackedSize == Self.kernel.count)
        #expect(try image.extractVmlinux() == Self.kernel)
    }

    @Test func zeroSetupSectorsMeanFour() throws {
        var bytes = Samples.bzImage(Self.kernel, .lz4)
        bytes[0x1F1] = 0
        #expect(try BzImage(bytes).extractVmlinux() == Self.kernel)
    }

    /// Bytes to change, and a word that the error has to have in it.
    static let damages: [(offset: Int, bytes: [UInt8], word: String)] = [
        (0x1FE, [0, 0], "boot flag"),
        (0x202, [0x58], "neither an ELF file nor a bzImage"),
        (0x206, [0x07, 0x02], "2.7 is older"),
        (0x201, [0x10], "too short"),
        (0x248, [0xFF, 0xFF, 0xFF, 0xFF], "goes beyond"),
        (0x24C, [0xFF, 0xFF, 0xFF, 0xFF], "goes beyond"),
        (0x24C, [0xFF, 0xFF, 0xFF, 0x7F], "goes beyond"),
        (0x24C, [4, 0, 0, 0], "no payload"),
        (0x24C, [0, 0, 0, 0], "no payload"),
        (0x1F1, [0xFF], "goes beyond"),
        (5 * 512 + 1024, Array("BZh".utf8), "bzip2"),
        (5 * 512 + 1024, [0x89, 0x4C, 0x5A, 0x4F], "LZO"),
        (5 * 512 + 1024, [0, 1, 2, 3, 4, 5], "00 01 02 03 04 05"),
    ]

    @Test(arguments: damages)
    func namesWhatIsWrong(_ damage: (offset: Int, bytes: [UInt8], word: String)) {
        var bytes = Samples.bzImage(Self.kernel, .zstd)
        bytes.replaceSubrange(damage.offset..<damage.offset + damage.bytes.count, with: damage.bytes)
        let error = failure { () throws(GuestImagesError) in try BzImage(bytes) }
        #expect(error?.description.contains(damage.word) == true, "\(String(describing: error))")
    }

    @Test func everyTruncationIsAnError() {
        let bytes = Samples.bzImage(Samples.vmlinux(size: 600), .gzip)
        for count in 0..<bytes.count {
            let error = failure { () throws(GuestImagesError) in try BzImage(Array(bytes[..<count])) }
            #expect(error != nil, "\(count) of \(bytes.count) bytes were accepted")
        }
    }

    @Test(arguments: Compression.allCases)
    func packedDataCutOffIsAnError(_ compression: Compression) {
        let packed = Samples.pack(Self.kernel, compression)
        let cut = Array(packed[..<(packed.count / 2)]) + Samples.little(UInt32(Self.kernel.count))
        let error = failure { () throws(GuestImagesError) in
            try BzImage(Samples.bzImage(payload: cut)).extractVmlinux()
        }
        guard case .decompressionFailed = error else {
            Issue.record("not refused as damaged: \(String(describing: error))")
            return
        }
    }

    @Test(arguments: Compression.allCases)
    func outputIsBounded(_ compression: Compression) throws {
        let image = try BzImage(Samples.bzImage(Self.kernel, compression))
        let tooMuch = failure { () throws(GuestImagesError) in try image.extractVmlinux(maximumSize: 1000) }
        #expect(tooMuch == .outputTooLarge(limit: 1000, expected: Self.kernel.count))
        // A bomb: it says 5000 bytes and holds more.
        let packed = Samples.pack(Self.kernel, compression)
        let error = failure { () throws(GuestImagesError) in
            try compression.decompress(packed[...], limit: 5000)
        }
        switch error {
        case .outputTooLarge(limit: 5000, expected: nil): #expect(compression != .lz4)
        case .decompressionFailed: #expect(compression == .lz4)
        default: Issue.record("\(String(describing: error))")
        }
    }

    @Test func aSizeThatIsNotTrueIsAnError() {
        for claimed in [0, 1, Self.kernel.count - 1, Self.kernel.count + 1] {
            let payload = Samples.pack(Self.kernel, .zstd) + Samples.little(UInt32(claimed))
            #expect(
                failure { () throws(GuestImagesError) in
                    try BzImage(Samples.bzImage(payload: payload)).extractVmlinux()
                } != nil, "claimed \(claimed)")
        }
    }

    @Test func whatComesOutHasToBeAKernel() {
        let wrong: [(bytes: [UInt8], word: String)] = [
            ([UInt8](repeating: 7, count: 500), "not an ELF file"),
            (Samples.elf(machine: 3, segments: [.init(address: 0, data: [1])]), "x86-64"),
            (Samples.elf(type: 1, segments: [.init(address: 0, data: [1])]), "ELF type 1"),
            (Samples.elf(), "0 program headers"),
            (
                Samples.elf(segments: [
                    .init(address: 4096, data: [1, 2]), .init(address: 0, data: [1], memorySize: 4097),
                ]), "overlap"
            ),
            (
                Samples.elf(segments: [.init(address: 0, data: [1, 2], memorySize: 1)]),
                "a segment of 2 bytes in 1"
            ),
            (
                Samples.elf(segments: [.init(address: .max, data: [1], memorySize: 2)]),
                "a segment of 1 bytes in 2"
            ),
        ]
        for (bytes, word) in wrong {
            let error = failure { () throws(GuestImagesError) in
                try BzImage(Samples.bzImage(bytes, .lz4)).extractVmlinux()
            }
            #expect(error?.description.contains(word) == true, "\(word): \(String(describing: error))")
        }
    }

    /// A failure can be repeated with the seed that is printed.
    private static func printedSeed(_ test: String) -> UInt64 {
        let given = ProcessInfo.processInfo.environment["MINGLE_TEST_SEED"].flatMap(UInt64.init)
        let seed = given ?? .random(in: 0 ... .max)
        print("BzImageTests.\(test): MINGLE_TEST_SEED=\(seed)")
        return seed
    }

    /// Whatever is in the file, the answer is a kernel or a typed error.
    @Test func mutatedImagesNeverCrash() {
        let seed = Self.printedSeed("mutatedImagesNeverCrash")
        var generator = SeededGenerator(seed: seed)
        let images = Compression.allCases.map { Samples.bzImage(Samples.vmlinux(size: 3000), $0) }
        var (accepted, refused) = (0, 0)
        for round in 0..<4000 {
            var bytes = images[round % images.count]
            for _ in 0..<Int.random(in: 1...6, using: &generator) {
                // Half of the changes hit the boot header, the others anything.
                let inHeader = Bool.random(using: &generator)
                let at = Int.random(in: inHeader ? 0x1F1...0x24F : 0...bytes.count - 1, using: &generator)
                bytes[at] =
                    [0, 1, 0x7F, 0x80, 0xFF, UInt8.random(in: 0...255, using: &generator)]
                    .randomElement(using: &generator) ?? 0
            }
            if Int.random(in: 0..<8, using: &generator) == 0 {
                bytes.removeLast(Int.random(in: 0..<bytes.count, using: &generator))
            }
            let error = failure { () throws(GuestImagesError) in
                try BzImage(bytes).extractVmlinux(maximumSize: 1 << 20)
            }
            if error == nil { accepted += 1 } else { refused += 1 }
        }
        #expect(refused > 1000 && accepted > 0, "\(refused) refused, \(accepted) accepted")
    }

    @Test func mutatedModulesAndPayloadsNeverCrash() {
        var generator = SeededGenerator(seed: Self.printedSeed("mutatedModulesAndPayloadsNeverCrash"))
        let files = [Samples.module(depends: "kvm,irqbypass"), Samples.payload()]
        var refused = 0
        for round in 0..<8000 {
            var bytes = files[round % files.count]
            for _ in 0..<Int.random(in: 1...4, using: &generator) {
                bytes[Int.random(in: 0..<bytes.count, using: &generator)] =
                    [
                        0, 0xFF, UInt8.random(in: 0...255, using: &generator),
                    ].randomElement(using: &generator) ?? 0
            }
            let error = failure { () throws(GuestImagesError) in
                if round % 2 == 0 {
                    _ = try KernelModules.dependencies(of: bytes, name: "m")
                } else {
                    try PayloadCatalogue.check(bytes, path: "p")
                }
            }
            if error != nil { refused += 1 }
        }
        #expect(refused > 1000, "\(refused) refused")
    }
}
