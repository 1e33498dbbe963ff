import FoundationEssentials
import GuestMemory
import LinuxHost
import TestSupport
import Testing

@testable import GuestImages
@testable import Hypervisor

/// How an archive is packed, and by which tool.
enum Packing: String, CaseIterable, Sendable {
    case none, gzip, bzip2, lzma, xz, lzo, lz4, zstd

    fileprivate var command: [String]? {
        switch self {
        case .none: nil
        case .gzip: ["gzip", "-c"]
        case .bzip2: ["bzip2", "-c"]
        case .lzma: ["xz", "--format=lzma", "-c"]
        case .xz: ["xz", "--check=crc32", "-c"]  // the only check that Linux knows
        case .lzo: ["lzop", "-c"]
        case .lz4: ["lz4", "-l", "-c"]
        case .zstd: ["zstd", "-q", "-c"]
        }
    }

    fileprivate var isAtHand: Bool { command.map { Tool.find($0[0]) != nil } ?? true }

    fileprivate func pack(_ bytes: [UInt8], scratch: String) throws -> [UInt8] {
        guard let command else { return bytes }
        let path = "\(scratch)/unpacked"
        try FileSystem.write(bytes, to: path)
        return try Tool.run(command + [path], scratch: scratch).output
    }
}

/// What cannot be tested here.
private let untested = Packing.allCases.filter { !$0.isAtHand }.map(\.rawValue).joined(separator: ", ")

/// Initrds packed in every way that Linux unpacks, joined as `mingle-vmm` joins them, unpacked by the real kernel.
extension BootTests {
    @Suite struct PackedInitrdTests {
        private func proof(_ name: String, size: Int) throws -> [UInt8] {
            var archive = CPIOArchive()
            let bytes = (0..<size).map { UInt8(truncatingIfNeeded: $0 &* $0 / 3) }
            try archive.add("proof/\(name)", .file(bytes))
            return archive.serialized()
        }

        /// Boots archives that hold our initramfs and a command among them; the command's status is the test's.
        private func boot(_ archives: [[UInt8]], _ kernel: DebianKernel, directory: String, _ what: String)
            throws
        {
            var configuration = VirtualMachineConfiguration()
            configuration.kernelPath = kernel.vmlinux
            for (index, archive) in archives.enumerated() {
                let path = "\(directory)/archive-\(index)"
                try FileSystem.write(archive, to: path)
                configuration.initrdPaths.append(path)
            }
            let memory = try GuestMemory(
                sizeInBytes: 256 << 20, lowLimit: GuestAddress(3 << 30), highStart: GuestAddress(4 << 30),
                name: "packed")
            let entry = try GuestLoader(configuration: configuration, memory: memory, timestampFrequency: 1)
                .load()
            guard case .pvh(let information) = entry.mode else { throw Failure("entered as \(entry.mode)") }
            func number(_ address: UInt64) throws -> UInt64 {
                try memory.read(GuestAddress(address), count: 8).reversed().reduce(0) { $0 << 8 | UInt64($1) }
            }
            let module = try number(information.value + 16)
            let (start, size) = (try number(module), try number(module + 8))
            try FileSystem.write(
                try memory.read(GuestAddress(start), count: Int(size)), to: "\(directory)/initrd")
            let outcome = try BootTests.ending(kernel, directory: directory, what)
            let console = (try? FileSystem.read("\(directory)/console")) ?? []
            #expect(outcome.status == 7 * 2 + 1, "\(what): \(String(decoding: console, as: UTF8.self))")
        }

        /// The initramfs, and the command that ends with 7 if all of these proofs are there with their sizes.
        private func base(_ directory: String, _ kernel: DebianKernel, _ proofs: [(name: String, size: Int)])
            throws
            -> (archive: [UInt8], command: [UInt8])
        {
            let cache = ImageCache(directory: "\(directory)/cache")
            let archive = try FileSystem.read(Initramfs.build(cache: cache, share: .find(), kernel: kernel))
            let script = proofs.map {
                "[ $(wc -c < /proof/\($0.name)) = \($0.size) ] || { echo lacks \($0.name); exit 1; }"
            }
            let command = try Initramfs.commandOverlay(
                command: ["sh", "-c", (script + ["exit 7"]).joined(separator: "\n")], terminal: false)
            return (archive, command)
        }

        @Test(arguments: Packing.allCases.filter(\.isAtHand))
        func anInitrdPackedInOneWayAloneFirstAndLast(_ packing: Packing) throws {
            try withTemporaryDirectory { directory in
                let kernel = try DebianKernel.locate(in: ImageCache())
                let (archive, command) = try base(directory, kernel, [("one", 1001)])
                let one = try proof("one", size: 1001)
                let alone = try packing.pack(archive + one + command, scratch: directory)
                try boot([alone], kernel, directory: directory, "\(packing) alone")
                let (first, last) = (
                    try packing.pack(archive, scratch: directory),
                    try packing.pack(command, scratch: directory)
                )
                try boot([first, one, last], kernel, directory: directory, "\(packing) first and last")
            }
        }

        @Test func everyPackingBehindEveryOther() throws {
            try withTemporaryDirectory { directory in
                let kernel = try DebianKernel.locate(in: ImageCache())
                let packings = Packing.allCases.filter(\.isAtHand)
                let pairs = packings.flatMap { first in packings.flatMap { [first, $0] } }
                // Sizes that differ, so that the packed archives end everywhere between two multiples of four.
                let proofs = pairs.enumerated().map { (name: "\($0)-\($1)", size: 100 + 37 * $0) }
                let (archive, command) = try base(directory, kernel, proofs)
                let packed = try zip(pairs, proofs).map { packing, proof in
                    try packing.pack(try self.proof(proof.name, size: proof.size), scratch: directory)
                }
                try boot([archive] + packed + [command], kernel, directory: directory, "all pairs")
            }
        }

        /// Says by its skip what the tests above leave out.
        @Test(
            .enabled(
                if: untested.isEmpty || isDemanded,
                "the tools that pack these are missing, so that they are not tested: \(untested)"))
        func everyToolThatPacksIsAtHand() {
            #expect(untested.isEmpty)
        }
    }
}
