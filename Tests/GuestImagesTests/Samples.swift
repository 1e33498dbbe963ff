import CLZ4
import CLZMA
import CZlib
import CZstd
import FoundationEssentials

@testable import GuestImages

/// Small made-up files of the kinds that are read here.
enum Samples {
    static func little<Value: FixedWidthInteger>(_ value: Value) -> [UInt8] {
        (0..<Value.bitWidth / 8).map { UInt8(truncatingIfNeeded: value >> Value(8 * $0)) }
    }

    struct Segment {
        var type: UInt32 = 1
        var address: UInt64
        var data: [UInt8]
        var memorySize: UInt64?
        var alignment: UInt64 = 1
    }

    /// An ELF64 file with these segments and sections.
    static func elf(
        type: UInt16 = 2, machine: UInt16 = 62, segments: [Segment] = [],
        sections: [(name: String, data: [UInt8])] = []
    ) -> [UInt8] {
        let tableEnd = 64 + 56 * segments.count
        var (headers, data): ([UInt8], [UInt8]) = ([], [])
        for segment in segments {
            headers += little(segment.type) + little(UInt32(7)) + little(UInt64(tableEnd + data.count))
            headers += little(segment.address) + little(segment.address) + little(UInt64(segment.data.count))
            headers += little(segment.memorySize ?? UInt64(segment.data.count)) + little(segment.alignment)
            data += segment.data
        }
        var (names, sectionHeaders): ([UInt8], [UInt8]) = ([0], Array(repeating: 0, count: 64))
        func add(_ name: String, _ bytes: [UInt8], nameOffset: Int) {
            sectionHeaders +=
                little(UInt32(nameOffset)) + little(UInt32(1)) + little(UInt64(0)) + little(UInt64(0))
            sectionHeaders += little(UInt64(tableEnd + data.count)) + little(UInt64(bytes.count))
            sectionHeaders += [UInt8](repeating: 0, count: 24)
            data += bytes
        }
        for (name, bytes) in sections {
            let offset = names.count
            names += Array(name.utf8) + [0]
            add(name, bytes, nameOffset: offset)
        }
        let (namesOffset, count) = (names.count, sections.isEmpty ? 0 : sections.count + 2)
        names += Array(".shstrtab".utf8) + [0]
        add(".shstrtab", names, nameOffset: namesOffset)
        let header =
            [0x7F, 0x45, 0x4C, 0x46, 2, 1, 1] + [UInt8](repeating: 0, count: 9) + little(type)
            + little(machine)
            + little(UInt32(1)) + little(UInt64(0x200000)) + little(UInt64(64))
            + little(UInt64(count == 0 ? 0 : tableEnd + data.count)) + little(UInt32(0)) + little(UInt16(64))
            + little(UInt16(56)) + little(UInt16(segments.count)) + little(UInt16(64)) + little(UInt16(count))
            + little(UInt16(count == 0 ? 0 : count - 1))
        return header + headers + data + (count == 0 ? [] : sectionHeaders)
    }

    /// A plausible vmlinux: text that packs well, and noise that does not.
    static func vmlinux(size: Int = 200_000) -> [UInt8] {
        var generator = SeededGenerator(seed: 7)
        let half = (0..<size / 2).map { _ in UInt8.random(in: 0...255, using: &generator) }
        return elf(segments: [
            Segment(address: 0x100_0000, data: half + [UInt8](repeating: 0xCC, count: size / 2)),
            Segment(address: 0x200_0000, data: [1, 2, 3], memorySize: 0x10000),
        ])
    }

    static func payload(version: UInt32 = 1, flags: UInt32 = 0, name: String = "Mingle") -> [UInt8] {
        let text = Array(name.utf8) + [0]
        let padded = text + [UInt8](repeating: 0, count: (4 - text.count % 4) % 4)
        let note = little(UInt32(text.count)) + little(UInt32(8)) + little(UInt32(1)) + padded
        return elf(segments: [
            Segment(address: 0x20_0000, data: [0x90, 0x90]),
            Segment(type: 4, address: 0, data: note + little(version) + little(flags)),
        ])
    }

    static func module(depends: String) -> [UInt8] {
        elf(
            type: 1,
            sections: [(".text", [0x90]), (".modinfo", Array("license=GPL\0depends=\(depends)\0".utf8))])
    }

    static func bzImage(_ kernel: [UInt8], _ compression: Compression) -> [UInt8] {
        let size = little(UInt32(kernel.count))
        let packed = pack(kernel, compression) + (compression == .gzip ? [] : size)
        return bzImage(payload: packed)
    }

    /// The boot header, two sectors of code before the payload, and the payload.
    static func bzImage(payload: [UInt8], setupSectors: Int = 4) -> [UInt8] {
        let (start, codeSize) = ((setupSectors + 1) * 512, 1024)
        var image = [UInt8](repeating: 0, count: start + codeSize)
        func put(_ bytes: [UInt8], _ offset: Int) {
            image.replaceSubrange(offset..<offset + bytes.count, with: bytes)
        }
        put([UInt8(setupSectors)], 0x1F1)
        put([0x55, 0xAA, 0xEB, 0x66], 0x1FE)
        put(Array("HdrS".utf8) + [0x0F, 0x02], 0x202)
        put(little(UInt16(0x300)), 0x20E)
        put(Array("6.1.0-test (somebody)\0".utf8), 0x500)
        put(little(UInt32(codeSize)) + little(UInt32(payload.count)), 0x248)
        return image + payload
    }

    static func pack(_ bytes: [UInt8], _ compression: Compression) -> [UInt8] {
        var output = [UInt8](repeating: 0, count: bytes.count * 2 + 4096)
        let room = output.count
        switch compression {
        case .gzip:
            var stream = z_stream()
            let end: UInt = output.withUnsafeMutableBufferPointer { target in
                bytes.withUnsafeBufferPointer { source in
                    deflateInit2_(
                        &stream, 9, Z_DEFLATED, 16 + MAX_WBITS, 8, Z_DEFAULT_STRATEGY, ZLIB_VERSION,
                        Int32(MemoryLayout<z_stream>.size))
                    stream.next_in = UnsafeMutablePointer(mutating: source.baseAddress)
                    stream.avail_in = UInt32(source.count)
                    stream.next_out = target.baseAddress
                    stream.avail_out = UInt32(room)
                    deflate(&stream, Z_FINISH)
                    deflateEnd(&stream)
                    return stream.total_out
                }
            }
            return Array(output[..<Int(end)])
        case .lz4:
            return packLZ4(bytes)
        case .zstd:
            return Array(output[..<ZSTD_compress(&output, room, bytes, bytes.count, 19)])
        case .xz:
            var end = 0
            lzma_easy_buffer_encode(6, LZMA_CHECK_CRC32, nil, bytes, bytes.count, &output, &end, room)
            return Array(output[..<end])
        case .lzma:
            var (stream, options) = (lzma_stream(), lzma_options_lzma())
            lzma_lzma_preset(&options, 6)
            output.withUnsafeMutableBufferPointer { target in
                bytes.withUnsafeBufferPointer { source in
                    _ = lzma_alone_encoder(&stream, &options)
                    stream.next_in = source.baseAddress
                    stream.avail_in = source.count
                    stream.next_out = target.baseAddress
                    stream.avail_out = room
                    while lzma_code(&stream, LZMA_FINISH) == LZMA_OK {}
                    lzma_end(&stream)
                }
            }
            return Array(output[..<(room - stream.avail_out)])
        }
    }

    /// Two blocks at least, since the kernel's build makes many.
    private static func packLZ4(_ bytes: [UInt8]) -> [UInt8] {
        // Only the last block may unpack to less than 8 MiB in a file of lz4's; the kernel's reader does not mind.
        let half = bytes.count / 2
        return Compression.lz4.magic
            + [Array(bytes[..<half]), Array(bytes[half...])].flatMap { block -> [UInt8] in
                var packed = [CChar](repeating: 0, count: Int(LZ4_compressBound(Int32(block.count))))
                let size = block.withUnsafeBytes {
                    LZ4_compress_default(
                        $0.bindMemory(to: CChar.self).baseAddress, &packed, Int32(block.count),
                        Int32(packed.count))
                }
                return little(UInt32(size)) + packed[..<Int(size)].map { UInt8(bitPattern: $0) }
            }
    }
}

/// SplitMix64: the same numbers for the same seed, on every machine.
struct SeededGenerator: RandomNumberGenerator {
    private var state: UInt64

    init(seed: UInt64) { state = seed }

    mutating func next() -> UInt64 {
        state &+= 0x9E37_79B9_7F4A_7C15
        var z = state
        z = (z ^ (z >> 30)) &* 0xBF58_476D_1CE4_E5B9
        z = (z ^ (z >> 27)) &* 0x94D0_49BB_1331_11EB
        return z ^ (z >> 31)
    }
}

/// A directory for one test, gone after it.
func withTemporaryDirectory<Result>(_ body: (String) throws -> Result) throws -> Result {
    let path = TemporaryFiles.path + "/mingle-images-\(UInt64.random(in: 0...UInt64.max))"
    try FileManager.default.createDirectory(atPath: path, withIntermediateDirectories: true)
    defer { try? FileManager.default.removeItem(atPath: path) }
    return try body(path)
}

private enum TemporaryFiles {
    static let path = ProcessInfo.processInfo.environment["TMPDIR"] ?? "/tmp"
}

/// The error that `body` throws, or nil.
func failure<Result>(_ body: () throws(GuestImagesError) -> Result) -> GuestImagesError? {
    do throws(GuestImagesError) {
        _ = try body()
        return nil
    } catch {
        return error
    }
}
