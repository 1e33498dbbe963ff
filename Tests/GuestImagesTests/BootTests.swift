import FoundationEssentials
import TestSupport
import Testing

@testable import GuestImages

/// `MINGLE_REQUIRE=images` makes a lack a failure instead of a skip.
let isDemanded = Demands.include("images")

private var canBoot: Bool {
    if isDemanded { return true }
    guard Tool.find("qemu-system-x86_64") != nil, let cache = try? ImageCache(),
        DebianKernel.cached(in: cache) != nil, let share = try? ShareDirectory.find()
    else { return false }
    return FileSystem.isReadable("\(share.linux)/mingle-guest")
}

/// Boots the initramfs with the real kernel under QEMU's emulator, which needs no KVM: about two seconds a guest.
@Suite(
    .serialized,
    .enabled(
        if: canBoot, "needs qemu-system-x86_64, 'make guests', and a kernel in the image cache"))
struct BootTests {
    struct Case: Sendable {
        let command: [String]
        let status: Int32
        /// What the command prints, without the kernel's and init's lines.
        var output = ""
        var environment: [String: String] = [:]
        var terminal = false
    }

    static let awkward = ["a b", "", "it's", "\"$HOME\" `id` \\", "äöü\u{1}\u{81}", "new\nline", "*", "-n"]
    static let cases = [
        Case(command: ["true"], status: 0),
        Case(command: ["sh", "-c", "exit 42"], status: 42),
        Case(command: ["sh", "-c", "kill -9 $$"], status: 137, output: "Killed\n"),
        Case(command: ["no-such-program"], status: 127, output: "no-such-program: not found\n"),
        Case(command: ["/etc/group"], status: 126, output: "/etc/group: cannot be executed\n"),
        Case(
            command: ["printf", "[%s]\n"] + awkward, status: 0, output: awkward.map { "[\($0)]\n" }.joined()),
        Case(
            command: ["sh", "-c", "echo $FOO $HOME; hostname; tty; wc -l < /proc/modules"], status: 0,
            output: "b'a r /root\nbob\n/dev/ttyS0\n8\n", environment: ["FOO": "b'a r"]),
        Case(
            command: ["sh", "-c", "stty size; exit 3"], status: 3, output: "33 99\r\n", terminal: true),
        Case(
            command: ["sh", "-c", "seq 1 3000 | md5sum"], status: 0,
            output: "ee9762749fc5338b6c9b0948d14219c7  -\n"),
    ]

    @Test(arguments: cases)
    func commandsAndTheirStatus(_ sample: Case) throws {
        try withTemporaryDirectory { directory in
            let cache = try ImageCache()
            let kernel = try DebianKernel.locate(in: cache)
            let own = ImageCache(directory: "\(directory)/cache")
            let base = try FileSystem.read(Initramfs.build(cache: own, share: .find(), kernel: kernel))
            let overlay = try Initramfs.commandOverlay(
                command: sample.command, environment: sample.environment, terminal: sample.terminal,
                size: .init(rows: 33, columns: 99))
            try FileSystem.write(base + overlay, to: "\(directory)/initrd")
            let outcome = try Self.ending(kernel, directory: directory, "\(sample.command)")
            let console = (try? FileSystem.read("\(directory)/console")) ?? []
            // QEMU's debug port ends it with twice the value and 1, of which 8 bits arrive.
            try #require(
                outcome.status == (sample.status * 2 + 1) & 0xFF,
                "\(outcome)\n\(String(decoding: Array(console), as: UTF8.self))")
            // Bytes, because CR LF is one Character.
            let lines =
                console
                .split(separator: UInt8(ascii: "\n"), omittingEmptySubsequences: false)
            let marker = try #require(lines.firstIndex { $0.starts(with: "mingle: init after ".utf8) })
            let output = lines[(marker + 1)...].joined(separator: [UInt8(ascii: "\n")])
            #expect(String(decoding: Array(output), as: UTF8.self) == sample.output)
        }
    }

    enum Damage: String, CaseIterable { case noOverlay, garbage, cutOff }

    @Test(
        "a RAM disk that is not all there ends the guest, with the kernel's words", arguments: Damage.allCases
    )
    func incompleteRAMDisk(_ damage: Damage) throws {
        try withTemporaryDirectory { directory in
            let kernel = try DebianKernel.locate(in: ImageCache())
            let own = ImageCache(directory: "\(directory)/cache")
            let base = try FileSystem.read(Initramfs.build(cache: own, share: .find(), kernel: kernel))
            let overlay = try Initramfs.commandOverlay(command: ["true"], terminal: false)
            var disk = base + overlay
            switch damage {
            case .noOverlay: disk = base
            case .garbage: disk = base + [UInt8](repeating: 0x41, count: 512) + overlay
            case .cutOff: disk = base + overlay.prefix(60)
            }
            try FileSystem.write(disk, to: "\(directory)/initrd")
            let outcome = try Self.ending(
                kernel, directory: directory, "\(damage)", words: "mingle.command")
            let console = String(
                decoding: (try? FileSystem.read("\(directory)/console")) ?? [], as: UTF8.self)
            #expect(outcome.status == (118 * 2 + 1) & 0xFF, "\(console)")
            #expect(
                console.contains("the command that was to be run is missing in the unpacked RAM disk"),
                "\(console)")
            let complains = console.contains("the kernel says of the initial RAM disk: ")
            #expect(complains == (damage == .garbage), "\(console)")
            if complains { #expect(console.contains("Initramfs unpacking failed: ")) }
        }
    }

    /// Status of timeout(1).
    private static let timedOut: Int32 = 124

    /// Boots the initrd in the directory; `what` names it in the log, `words` are more of the kernel's command line.
    static func ending(
        _ kernel: DebianKernel, directory: String, _ what: String, words: String = ""
    ) throws -> (status: Int32, complaint: String) {
        // An emulated guest stalls now and then (docs/testing.md): that is said, and tried again.
        let first = try attempt(kernel, directory: directory, words)
        guard first.status == timedOut else { return first }
        print("== AGAIN, since the emulated guest stalled: \(what)")
        return try attempt(kernel, directory: directory, words)
    }

    private static func attempt(_ kernel: DebianKernel, directory: String, _ words: String) throws -> (
        status: Int32, complaint: String
    ) {
        let error = failure { () throws(GuestImagesError) in
            try boot(kernel, directory: directory, words: words)
        }
        guard case .toolFailed(_, let status, let complaint) = error else {
            throw Failure("no exit status came: \(String(describing: error))")
        }
        return (status, complaint)
    }

    private static func boot(
        _ kernel: DebianKernel, directory: String, words: String
    ) throws(GuestImagesError) {
        // The clock's frequency is given: calibration against emulated timers fails now and then on a busy host.
        let commandLine = """
            console=ttyS0 quiet panic=-1 mitigations=off cryptomgr.notests rdinit=/init \
            initcall_blacklist=cmos_init tsc=reliable tsc_early_khz=1000000 lpj=2000000 no_timer_check mingle.name=bob \(words)
            """
        try Tool.run(
            [
                "timeout", "180", "qemu-system-x86_64", "-M", "microvm,acpi=on,rtc=on,pit=on,pic=on",
                "-accel",
                "tcg",
                "-cpu", "max,-la57", "-m", "256", "-nodefaults", "-no-user-config", "-display", "none",
                "-no-reboot",
                "-serial", "file:\(directory)/console", "-device", "isa-debug-exit,iobase=0xd00",
                "-kernel", kernel.vmlinux, "-initrd", "\(directory)/initrd", "-append", commandLine,
            ], scratch: directory)
    }
}
