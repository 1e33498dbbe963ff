import LinuxHost
import Testing

@testable import MingleSupport
import VMMProtocol

@Suite struct ByteSizeTests {
    @Test(
        arguments: [
            ("0", 0), ("4096", 4096), ("1K", 1024), ("1Ki", 1024), ("1KiB", 1024), ("128M", 134_217_728),
            ("128m", 134_217_728), ("128MB", 134_217_728), ("2G", 2_147_483_648), ("2Gi", 2_147_483_648),
            ("12B", 12), ("1T", 1_099_511_627_776), ("16777215T", 18_446_742_974_197_923_840),
        ] as [(String, UInt64)])
    func parses(_ text: String, _ bytes: UInt64) throws { #expect(try ByteSize.parse(text) == bytes) }

    @Test(arguments: [
        "", "M", "-1M", "+1M", "1.5G", "12x", "1 M", "1KM", "1Mx", "0x10", "16777216T",
        "18446744073709551616", "１M",
        "1i", "1iB",
    ])
    func refuses(_ text: String) {
        #expect(throws: SupportError.invalidSize(text: text)) { try ByteSize.parse(text) }
    }

    @Test(
        arguments: [
            (0, "0B"), (1023, "1023B"), (1024, "1K"), (1536, "1.5K"), (134_217_728, "128M"),
            (134_217_729, "128.0M"),
            (1 << 30, "1G"), ((1 << 30) - 1, "1023.9M"), (5 << 40, "5T"), (UInt64.max, "16777215.9T"),
        ] as [(UInt64, String)])
    func formats(_ bytes: UInt64, _ text: String) { #expect(ByteSize.format(bytes) == text) }
}

@Suite struct GuestNameTests {
    @Test(arguments: ["a", "web-1", "A.b_c-9", "9", String(repeating: "x", count: 64)])
    func accepts(_ name: String) throws { #expect(try GuestName.checked(name) == name) }

    @Test(arguments: [
        "", ".", "..", ".hidden", "-dash", "_x", "a/b", "a b", "a\n", "é", "a\0",
        String(repeating: "x", count: 65),
    ])
    func refuses(_ name: String) {
        #expect(throws: SupportError.invalidName(text: name)) { try GuestName.checked(name) }
    }

    @Test func standardNameIsValid() throws {
        #expect(try GuestName.checked(GuestName.standard(process: 4711)) == "guest-4711")
    }
}

@Suite struct KernelCommandLineTests {
    @Test func defaultsImageAndUserInOrder() throws {
        let line = try KernelCommandLine.assemble(
            bare: false, image: ["mingle.name=web"], user: ["quiet=0 x=1"])
        #expect(
            line == "console=ttyS0 quiet panic=-1 random.trust_cpu=on cryptomgr.notests "
                + "mingle.name=web quiet=0 x=1")
    }

    @Test func bareLeavesOnlyTheUsers() throws {
        #expect(
            try KernelCommandLine.assemble(bare: true, image: [], user: ["rdinit=/bin/sh"])
                == "rdinit=/bin/sh")
        #expect(try KernelCommandLine.assemble(bare: true, image: [], user: []) == "")
    }

    @Test func exactlyTheLimitFits() throws {
        let most = String(repeating: "a", count: KernelCommandLine.maximumLength)
        #expect(try KernelCommandLine.assemble(bare: true, image: [], user: [most]) == most)
        #expect(throws: SupportError.commandLineTooLong(byteCount: 2048, limit: 2047)) {
            try KernelCommandLine.assemble(bare: true, image: [], user: [most + "b"])
        }
    }

    @Test func bytesCountNotCharacters() {
        let text = String(repeating: "é", count: 1024)
        #expect(throws: SupportError.commandLineTooLong(byteCount: 2048, limit: 2047)) {
            try KernelCommandLine.assemble(bare: true, image: [], user: [text])
        }
    }

    @Test(arguments: [("a\nb", 10), ("a\0b", 0), ("\t", 9), ("x\u{7f}", 127)] as [(String, UInt8)])
    func refusesControlCharacters(_ text: String, _ value: UInt8) {
        #expect(throws: SupportError.controlCharacter(option: "--cmdline", value: value)) {
            try KernelCommandLine.assemble(bare: false, image: [], user: [text])
        }
    }
}

@Suite struct ChoiceTests {
    @Test func serialDestinations() throws {
        #expect(try SerialDestination.checked("stdio") == .standardStreams)
        #expect(try SerialDestination.checked("none") == .none)
        #expect(try SerialDestination.checked("file:/tmp/a:b") == .file(path: "/tmp/a:b"))
        for text in ["", "file", "file:", "tcp:1", "STDIO"] {
            #expect(throws: SupportError.invalidSerial(text: text)) { try SerialDestination.checked(text) }
        }
        for text in ["stdio", "none", "file:x"] {
            #expect(try SerialDestination.checked(text).argument == text)
        }
    }

    @Test func kernels() throws {
        #expect(try KernelChoice("debian") == .debian)
        #expect(try KernelChoice("./debian") == .file(path: "./debian"))
        #expect(try KernelChoice("payload:hello") == .payload(name: "hello"))
        #expect(throws: SupportError.self) { try KernelChoice("payload:") }
        #expect(throws: SupportError.self) { try KernelChoice("payload:../x") }
    }

    @Test func payloadArgumentsHaveALimit() throws {
        #expect(try PayloadArguments.join(["a", "b c"]) == "a b c")
        #expect(try PayloadArguments.join([String(repeating: "x", count: 4095)]).utf8.count == 4095)
        #expect(throws: SupportError.self) {
            try PayloadArguments.join([String(repeating: "x", count: 4096)])
        }
    }
}

@Suite struct OutputTests {
    @Test func tableAligns() {
        var table = TextTable(["NAME", "SIZE", "X"], rightAligned: ["SIZE"])
        table.add(["a", "1", ""])
        table.add(["longer", "12345", "y"])
        #expect(table.text == "NAME     SIZE  X\na           1\nlonger  12345  y")
    }

    @Test(
        arguments: [
            (0, "0s"), (59, "59s"), (60, "1m00s"), (3599, "59m59s"), (3600, "1h00m"), (86399, "23h59m"),
            (86400 * 4 + 3 * 3600, "4d03h"),
        ] as [(UInt64, String)])
    func uptimes(_ seconds: UInt64, _ text: String) { #expect(Uptime.format(seconds: seconds) == text) }

    @Test func jsonKeepsOrderAndEscapes() {
        let value = JSONValue.object([
            ("z", .string("a\"\\\n\u{1}é")),
            ("a", .array([.unsigned(.max), .integer(-1), .boolean(true), .null])),
            ("e", .array([])), ("o", .object([])), ("d", .decimal(1.5)), ("n", .decimal(.nan)),
        ])
        #expect(
            value.text() == """
                {
                  "z": "a\\"\\\\\\n\\u0001é",
                  "a": [
                    18446744073709551615,
                    -1,
                    true,
                    null
                  ],
                  "e": [],
                  "o": {},
                  "d": 1.5,
                  "n": null
                }
                """)
    }

    @Test func exitCodesAreShown() {
        #expect(
            ExitStatus.table == """
                EXIT CODES
                  0      the guest powered off
                  N      what the guest wrote to the exit port (the status of COMMAND)
                  118    the initial RAM disk could not be unpacked, or holds no command
                  119    output, report or trace could not be written
                  120    the guest rebooted
                  121    the guest's kernel panicked
                  122    triple fault
                  123    KVM internal error, or an exit that is not known
                  124    the time given by --timeout ran out
                  125    mingle itself failed
                  128+n  forced to stop after signal n
                  64     wrong usage of the command line
                """)
    }

    @Test func logLevelsAreOrdered() {
        #expect(LogLevel.trace < .debug && LogLevel.debug < .info && LogLevel.warning < .error)
    }

    @Test func errnoTexts() {
        #expect(LinuxError.message(2) == "No such file or directory")
        #expect(LinuxError.message(99999).contains("99999"))
    }
}
