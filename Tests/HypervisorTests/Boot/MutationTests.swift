import Foundation
import GuestMemory
import TestSupport
import Testing

@testable import Hypervisor
import ImageFormats

/// Valid images, changed at random: each is loaded or refused by an error of ours, and what is loaded lies in RAM.
/// `MINGLE_FUZZ_COUNT` says how many (3000 if unset).
@Suite struct MutationTests {
    @Test func mutatedImagesAreLoadedOrRefused() throws {
        var random = SeededGenerator(for: "mutated images")
        let count = environmentNumber("MINGLE_FUZZ_COUNT") ?? 3000
        let bench = try LoaderBench(memorySize: 32 * mib)
        let initrd = try bench.directory.write("initrd", [UInt8](repeating: 9, count: 5000))
        var payload = ELFFile.payload()
        payload.segments.append(.init(address: 0x30_0000, bytes: [1, 2, 3, 4, 5], sizeInMemory: 9000))
        var kernel = ELFFile.pvh()
        kernel.notes.append(.init(name: "GNU", type: 3, descriptor: [1, 2, 3, 4, 5]))
        let originals = [payload.bytes, kernel.bytes, BzImageFile().bytes]
        var loaded = 0
        for _ in 0..<count {
            let which = Int.random(in: 0..<3, using: &random)
            let bytes = mutate(
                originals[which], headerSize: which == 2 ? 0x270 : originals[which].count, &random)
            // Most by the way that suits them, so that mutations get far.
            let boot = random.oneIn(8) ? BootProtocol.allCases.randomElement(using: &random) ?? .auto : .auto
            let path = try bench.directory.write("kernel", bytes)
            do throws(HypervisorError) {
                let entry = try bench.load(path: path, boot: boot, initrds: which == 0 ? [] : [initrd])
                let start = GuestRange(start: GuestAddress(entry.address), sizeInBytes: 1)
                #expect(start.map(bench.memory.isRAM) == true)
                loaded += 1
            } catch {
                switch error {
                case .badImage, .invalidConfiguration: break
                default: Issue.record("an image made the loader fail with \(error)")
                }
            }
        }
        print("mutated images: \(loaded) of \(count) were loaded")
        // The mutations are small enough that many images stay good.
        #expect(loaded > Int(count) / 20)
    }

    private func mutate(_ original: [UInt8], headerSize: Int, _ random: inout SeededGenerator) -> [UInt8] {
        var bytes = original
        let interesting: [UInt64] = [
            0, 1, 2, 0x7F, 0x80, 0xFF, 0xFFF, 0x1000, 0x7FFF, 0x8000, 0xFFFF, 0xF_FFFF, 0x10_0000, 0x20_0000,
            0x7FFF_FFFF, 0x8000_0000, 0xC000_0000, 0xFFFF_FFFF, 1 << 32, UInt64(Int64.max), 1 << 63,
            UInt64.max - 4096,
            UInt64.max - 1, UInt64.max,
        ]
        for _ in 0..<Int.random(in: 1...4, using: &random) {
            let offset = Int.random(in: 0..<min(headerSize, bytes.count), using: &random)
            switch Int.random(in: 0..<4, using: &random) {
            case 0: bytes[offset] = random.byte()
            case 1: bytes[offset] ^= 1 << UInt8.random(in: 0..<8, using: &random)
            case 2:
                let width = [1, 2, 4, 8].randomElement(using: &random) ?? 8
                let start = offset & ~(width - 1)
                guard start + width <= bytes.count else { continue }
                let value = interesting.randomElement(using: &random) ?? 0
                bytes.replaceSubrange(start..<start + width, with: littleEndian(value, width))
            default: bytes[offset] = bytes[Int.random(in: 0..<bytes.count, using: &random)]
            }
        }
        if random.oneIn(10) { bytes.removeLast(Int.random(in: 0..<bytes.count, using: &random)) }
        return bytes.isEmpty ? [0] : bytes
    }
}
