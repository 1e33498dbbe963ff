import LinuxHost
import ArgumentParser
import MingleSupport
import VMMProtocol
import GuestMemory
import ImageFormats

/// What the machine is.
struct GuestOptions: ParsableArguments {
    @Option(help: ArgumentHelp("The guest's name: letters, digits, '.', '_' and '-'. (default: guest-PID)"))
    var name: String?

    @Option(
        help: ArgumentHelp(
            "RAM, with a unit: K, M or G (Ki, Mi, Gi mean the same). At least 32M for Linux, 4M for payloads.",
            valueName: "size"),
        transform: MemorySize.parse)
    var memory = MemorySize(bytes: 128 << 20)

    @OptionGroup var overcommit: OvercommitOption

    @Option(
        help: """
            Whether the guest's VMM can open, connect and execute nothing once the guest runs: on or off. Off is for \
            debugging; 'mingle ps' shows it.
            """)
    var confine = ConfineChoice.on

    @Option(help: ArgumentHelp("vCPUs, 1 to \(RunChecks.maximumCPUs).", valueName: "count"))
    var cpus = 1

    @Option(
        help: ArgumentHelp(
            "The number by which a payload tells guests of one experiment apart.", valueName: "number"),
        transform: WholeNumber.parse)
    var guestIndex: UInt32?

    @Option(
        help: ArgumentHelp("The seed that a payload is given.", valueName: "number"),
        transform: WholeNumber.parse)
    var seed: UInt64?

    func check() throws {
        _ = try ValidationError.checking { () throws(SupportError) in try RunChecks.cpuCount(cpus) }
        if let name {
            _ = try ValidationError.checking { () throws(SupportError) in try GuestName.checked(name) }
        }
    }
}

/// Whether the VMM is confined.
enum ConfineChoice: String, CaseIterable, ExpressibleByArgument { case on, off }

/// Whether it may be promised memory that is not there.
struct OvercommitOption: ParsableArguments {
    @Flag(
        name: .customLong("overcommit"),
        help: """
            Start though memory may not suffice if all guests use all of theirs; what is started so is paused when \
            memory is nearly gone.
            """)
    var isAllowed = false
}

/// Whether Linux is started where it is not expected to come up.
struct ForceOption: ParsableArguments {
    @Flag(
        name: .customLong("force"),
        help: "Boot Linux though this host emulates guests' kernel mode in software ('mingle doctor' tells).")
    var isForced = false
}

/// What it boots.
struct BootOptions: ParsableArguments {
    @Option(
        help: ArgumentHelp(
            "A kernel or payload file, 'debian' (from the image cache), or 'payload:NAME'.",
            valueName: "kernel"),
        completion: .file())
    var kernel = "debian"

    @Option(
        help: """
            The form of the kernel: vmlinux or bzimage for 'debian' (default: vmlinux); decompressed unpacks a \
            bzImage, of 'debian' or a file, into memory first.
            """)
    var format: KernelFormat?

    @Option(help: "How the kernel is entered: auto, pvh, linux64, bzimage or payload.")
    var boot = BootProtocol.auto

    @Option(
        parsing: .singleValue,
        help: ArgumentHelp(
            "An initial RAM disk; several are joined. (default: Mingle's own, for 'debian' and for a command)",
            valueName: "file"),
        completion: .file())
    var initrd: [String] = []

    @Flag(help: "Boot without an initial RAM disk.")
    var noInitrd = false

    @Option(help: ArgumentHelp("Words to add to the kernel's command line.", valueName: "text"))
    var cmdline: String?

    @Flag(help: "Leave Mingle's own words out of the kernel's command line.")
    var bareCmdline = false

    @OptionGroup var force: ForceOption

    func check(hasCommand: Bool) throws {
        let choice = try ValidationError.checking { () throws(SupportError) in try KernelChoice(kernel) }
        if noInitrd && !initrd.isEmpty { throw ValidationError("Use either --initrd or --no-initrd.") }
        try check(format: format, choice: choice)
        if case .payload = choice {
            try checkPayload(what: kernel)
        } else if noInitrd && hasCommand && choice == .debian {
            throw ValidationError("A command needs the initial RAM disk: leave --no-initrd out.")
        }
    }

    private func check(format: KernelFormat?, choice: KernelChoice) throws {
        switch (choice, format) {
        case (.debian, _), (_, nil), (.file, .decompressed): return
        case (.file, _): throw ValidationError("--format for a kernel file can only be decompressed.")
        case (.payload, _): throw ValidationError("A payload has no --format.")
        }
    }

    /// Refuses what only Linux understands.
    func checkPayload(what: String) throws {
        if !initrd.isEmpty {
            throw ValidationError("\(what) is a payload, which has no initrd: leave --initrd out.")
        }
        if cmdline != nil || bareCmdline {
            throw ValidationError("\(what) is a payload: its arguments go after '--', not into --cmdline.")
        }
    }
}

/// How it runs.
struct RunningOptions: ParsableArguments {
    @Option(help: ArgumentHelp("Where the serial line goes: stdio, none or file:PATH.", valueName: "where"))
    var serial = "stdio"

    @Option(
        help: ArgumentHelp("End the guest after this time. (default: never)", valueName: "seconds"),
        transform: Seconds.parse)
    var timeout: Seconds?

    @Option(help: ArgumentHelp("How long the guest may take to power off when asked.", valueName: "seconds"))
    var grace = 5

    @Option(help: "Record which pages the guest writes: off, on or manual.")
    var dirtyLog: DirtyLogMode?

    @Option(
        help: ArgumentHelp("Write a report of the run (JSON) to this file at its end.", valueName: "file"),
        completion: .file())
    var report: String?

    func check() throws {
        _ = try destination
        if !(0...86400).contains(grace) { throw ValidationError("--grace takes 0 to 86400 seconds.") }
    }

    var destination: SerialDestination {
        get throws {
            try ValidationError.checking { () throws(SupportError) in try SerialDestination.checked(serial) }
        }
    }
}

/// Whose memory it shares.
struct SharingOptions: ParsableArguments {
    @Option(
        help: ArgumentHelp(
            """
            Who merges equal pages of guests: builtin or off (default: builtin if a domain or another option of sharing \
            is given, else off). The kernel's own merging, ksm, can be compared by 'mingle density'.
            """, valueName: "mode"),
        transform: Self.mode)
    var sharing: SharingChoice.Mode?

    /// What is asked for, all options taken together.
    var mode: SharingChoice.Mode {
        sharing ?? (domain != nil || traceShare != nil || !tuning.isDefault ? .builtin : .off)
    }

    @Option(
        help: ArgumentHelp(
            "Share with your guests of the same domain. (default: one of its own)", valueName: "name"),
        transform: Self.domain)
    var domain: String?

    @OptionGroup var tuning: SharingTuning

    @Option(
        help: ArgumentHelp("Write what happens to shared pages to this file.", valueName: "file"),
        completion: .file())
    var traceShare: String?

    func check(dirtyLog: DirtyLogMode?) throws {
        if sharing == .off, domain != nil || traceShare != nil || !tuning.isDefault {
            throw ValidationError("--domain, --share-cpu, --window and --trace-share need --sharing builtin.")
        }
        if mode == .builtin, let dirtyLog, dirtyLog != .manual {
            throw ValidationError("--dirty-log \(dirtyLog.rawValue) needs --sharing off.")
        }
    }

    private static func mode(_ text: String) throws -> SharingChoice.Mode {
        if let mode = SharingChoice.Mode(rawValue: text) { return mode }
        throw ValidationError(
            text == "ksm"
                ? "ksm is for experiments: see 'mingle density --sharing ksm'" : "use builtin or off")
    }

    static func domain(_ text: String) throws -> String {
        try ValidationError.checking { () throws(SupportError) in try SharingChoice.domain(text) }
    }
}

/// What sharing may cost.
struct SharingTuning: ParsableArguments {
    @Option(
        help: ArgumentHelp("How much of one CPU merging may take. (default: 10%)", valueName: "percent"),
        transform: Self.percent)
    var shareCpu: Double?

    @Option(
        help: """
            How pages are kept from changing while they are merged: auto, userfaultfd (their writers wait) or pause \
            (all of the guest waits).
            """)
    var window = SharingChoice.Window.auto

    var isDefault: Bool { shareCpu == nil && window == .auto }

    static func percent(_ text: String) throws -> Double {
        try ValidationError.checking { () throws(SupportError) in try SharingChoice.percent(text) }
    }
}

/// The values of `--format`.
enum KernelFormat: String, CaseIterable, ExpressibleByArgument { case vmlinux, bzimage, decompressed }
