import Foundation
import GuestMemory
import LinuxHost
import TestSupport
import Testing

@testable import MingleSupport

/// Words of the command line that are no text, and many of them. The built `mingle` runs, with a script in the place of
/// its VMM that keeps the last initrd, which holds the guest's command.
@Suite struct ArgumentBytesTests {
    private static let hasKVM = SystemCall.isAccessible("/dev/kvm", mode: R_OK | W_OK)

    private let temporary: TemporaryDirectory
    private let kernel: String
    private let payload: String

    init() throws {
        temporary = try TemporaryDirectory()
        kernel = try temporary.write("bzImage", KernelFileTests.bzImage(version: 0x20f))
        let notes = KernelFileTests.note("Mingle", type: 1, descriptorSize: 8)
        payload = try temporary.write("payload.elf", KernelFileTests.elf(notes: notes))
        let vmm = try temporary.write(
            "vmm",
            """
            #!/bin/sh
            while [ $# -gt 0 ]; do
                [ "$1" = --initrd ] && cat "$2" > '\(temporary.path)/overlay'
                shift
            done
            """)
        try #require(chmod(vmm, 0o700) == 0)
    }

    /// Runs a line of shell in which `mingle` is the program: a shell passes bytes on, Foundation does not.
    private func shell(_ line: String) throws -> (status: Int32, errors: String) {
        let errors = temporary.path + "/errors"
        let process = try ChildProcess(
            "/bin/sh", ["-c", "mingle() { '\(try CommandLineTests.executable())' \"$@\"; }\n" + line],
            environment: [
                "HOME": temporary.path, "XDG_RUNTIME_DIR": temporary.path,
                "XDG_CACHE_HOME": temporary.path + "/cache", "MINGLE_VMM": temporary.path + "/vmm",
                "MINGLE_SHARE": temporary.path,
            ], streams: [.nothing, .nothing, .into(errors)])
        let status = try process.wait()
        return (status, String(decoding: try Data(contentsOf: URL(fileURLWithPath: errors)), as: UTF8.self))
    }

    /// The words of the command in the overlay that the VMM was given.
    private func command() throws -> [[UInt8]] {
        let archive = [UInt8](try Data(contentsOf: URL(fileURLWithPath: temporary.path + "/overlay")))
        let name = Array("mingle/command\0".utf8)
        let start = try #require(
            archive.indices.first { archive[$0...].starts(with: name) && $0 >= 110 })
        let header = String(decoding: archive[(start - 110)..<start], as: UTF8.self)
        let size = try #require(Int(header.dropFirst(54).prefix(8), radix: 16))
        let data = (start + name.count + 3) & ~3
        var words = archive[data..<data + size].split(separator: 0, omittingEmptySubsequences: false)
        #expect(words.last?.isEmpty == true)
        words.removeLast()
        return words.map(Array.init)
    }

    private var run: String {
        "mingle run --force --kernel '\(kernel)' --initrd '\(kernel)' --log-level error"
    }

    @Test(.enabled(if: hasKVM, "needs /dev/kvm"))
    func wordsThatAreNoTextArriveAsTheyAre() throws {
        let result = try shell(
            "\(run) -- printf '<%s>' \"$(printf '\\377\\376')\" '' -- \"$(printf 'a\\200\\nb\\303')\" ä --help"
        )
        #expect(result.status == 0 && result.errors.isEmpty, "\(result.errors)")
        #expect(
            try command() == [
                Array("printf".utf8), Array("<%s>".utf8), [0xFF, 0xFE], [], Array("--".utf8),
                [0x61, 0x80, 0x0A, 0x62, 0xC3], Array("ä".utf8), Array("--help".utf8),
            ])
    }

    /// The parser takes time that grows with the square of the words: it never sees these.
    @Test(.enabled(if: hasKVM, "needs /dev/kvm"))
    func manyWordsArrive() throws {
        let result = try shell("\(run) -- echo $(seq 1 40000)")
        #expect(result.status == 0 && result.errors.isEmpty, "\(result.errors)")
        #expect(try command() == [Array("echo".utf8)] + (1...40000).map { Array("\($0)".utf8) })
    }

    @Test func whatHasToBeTextIsRefusedByName() throws {
        let odd = "\"$(printf 'caf\\351')\""
        let cases: [(String, Int32, String)] = [
            ("run --kernel \(odd)", 64, "word 3 of the command line, 'caf\\xe9', is not UTF-8"),
            ("run --kernel k --initrd \(odd) -- true", 64, "word 5 of the command line, 'caf\\xe9'"),
            ("run --name=\(odd)", 64, "word 2 of the command line, '--name=caf\\xe9'"),
            ("stop -- \(odd)", 64, "word 3 of the command line"),
            ("\(odd)", 64, "word 1 of the command line"),
            (
                "run --kernel '\(payload)' -- a \(odd)", 125,
                "argument 2 of the payload, 'caf\\xe9', is not UTF-8"
            ),
        ]
        for (line, status, words) in cases where status == 64 || Self.hasKVM {
            let result = try shell("mingle " + line)
            #expect(result.status == status, "\(line): \(result.errors)")
            #expect(result.errors.contains(words), "\(line): \(result.errors)")
            #expect(result.errors.split(separator: "\n").count == 1, "\(result.errors)")
        }
    }

    @Test func wordsAreShownAsTheShellTakesThem() throws {
        #expect(ProcessArguments.shown(Array("a b\\\n\u{7F}é".utf8)) == #"a b\\\x0a\x7f\xc3\xa9"#)
        #expect(ProcessArguments.shown([UInt8](repeating: 0x61, count: 81)).count == 83)
        #expect(try ProcessArguments.text([[], Array("é".utf8)]) == ["", "é"])
        #expect(throws: ProcessArguments.NotText(number: 2, word: [0xC3])) {
            try ProcessArguments.text([[0x61], [0xC3]])
        }
    }
}
