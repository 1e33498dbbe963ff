import GuestMemory
import Hypervisor
import Logging
import Sharing

/// What the command line says. Parsed by hand: an argument parser would be a good part of this small program's memory.
struct Options {
    enum Serial: Equatable {
        case stdio
        case none
        case file(String)
    }

    var configuration = VirtualMachineConfiguration()
    var serial = Serial.stdio
    /// At the end of an input that is no terminal, send Ctrl-D.
    var endOfFileToGuest = false
    /// Seconds after which the guest is stopped; 0 is never.
    var timeout = 0.0
    /// Seconds between the power button and the end by force.
    var grace = 5.0
    var logLevel = Logger.Level.warning
    /// Where running guests are registered; checked by whoever started us.
    var stateDirectory: String?
    var reportPath: String?
    /// What `mingle ps` shows as the image.
    var imageLabel = ""
    var sharing = SharingOptions()
    /// Socket for commands while the guest runs (docs/control.md).
    var controlPath: String?
    /// End with the process that started us.
    var diesWithParent = false
    /// More memory may have been promised than there is: the guest is paused before the last is gone.
    var overcommits = false
    /// A descriptor with a lock, to be closed as soon as the guest is registered.
    var admission: Int32?

    struct SharingOptions: Equatable {
        enum Window: String, CaseIterable { case auto, userfaultfd, pause }
        var isOn = false
        /// Nothing is merged before the command `sharing on`.
        var waits = false
        /// nil: of this guest alone.
        var domain: String?
        /// Percent of one CPU.
        var cpuPercent = 10.0
        var window = Window.auto
        /// The broker's socket; without one, only zero pages are shared.
        var brokerPath: String?
        var tracePath: String?
        #if DEBUG
            /// `--inject`: what is to go wrong.
            var injection: FaultInjection?
        #endif
    }

    static let usage = """
        usage: mingle-vmm --kernel PATH [--name NAME] [--memory BYTES] [--cpus N] [--boot auto|pvh|linux64|bzimage|payload]
               [--initrd PATH]... [--cmdline TEXT] [--serial stdio|none|file:PATH] [--eof-to-guest] [--timeout SECONDS]
               [--grace SECONDS] [--log-level trace|debug|info|warning|error] [--state-dir DIR] [--seed N]
               [--guest-index N] [--arguments TEXT] [--dirty-log off|on|manual] [--report PATH] [--image LABEL]
               [--kvm PATH] [--ram memory-file|anonymous-mergeable] [--sharing builtin|waiting|off]
               [--domain NAME]
               [--share-cpu PERCENT] [--broker SOCKET]
               [--window auto|userfaultfd|pause] [--trace-share FILE] [--control SOCKET] [--die-with-parent]
               [--overcommit] [--admission DESCRIPTOR]
        Runs one guest. Made to be started by `mingle run`, which has the defaults and the help.
        """

    init(_ words: [String]) throws(UsageError) {
        var rest = words[...]
        while let option = rest.popFirst() {
            if option == "--eof-to-guest" {
                endOfFileToGuest = true
                continue
            }
            if option == "--die-with-parent" {
                diesWithParent = true
                continue
            }
            if option == "--overcommit" {
                overcommits = true
                continue
            }
            guard option.hasPrefix("--") else { throw UsageError("unexpected argument '\(option)'") }
            guard let value = rest.popFirst() else {
                throw UsageError("\(option) needs a value, or is unknown")
            }
            try set(option, value)
        }
        guard !configuration.kernelPath.isEmpty else { throw UsageError("--kernel is missing") }
        if sharing.isOn {
            configuration.dirtyLog = .manual
            configuration.beginsDirtyLogLater = true
        }
        guard !sharing.isOn || configuration.memoryBacking == .memoryFile else {
            throw UsageError("--sharing builtin works on memory files: use --ram memory-file")
        }
        guard configuration.name.isPlainName else {
            throw UsageError(
                "--name \(configuration.name): use letters, digits, '.', '_' and '-', at most 64")
        }
    }

    private mutating func set(_ option: String, _ value: String) throws(UsageError) {
        switch option {
        case "--kernel": configuration.kernelPath = value
        case "--name": configuration.name = value
        case "--memory": configuration.memorySizeInBytes = try number(option, value)
        case "--cpus": configuration.processorCount = try number(option, value)
        case "--boot": configuration.bootProtocol = try choice(option, value)
        case "--initrd": configuration.initrdPaths.append(value)
        case "--cmdline": configuration.commandLine = value
        case "--arguments": configuration.payload.arguments = value
        case "--guest-index": configuration.payload.guestIndex = try number(option, value)
        case "--seed": configuration.payload.seed = try number(option, value)
        case "--dirty-log": configuration.dirtyLog = try choice(option, value)
        case "--ram": configuration.memoryBacking = try choice(option, value)
        case "--kvm": configuration.kvmPath = value
        case "--serial": serial = try Self.serial(value)
        case "--timeout": timeout = try seconds(option, value)
        case "--grace": grace = try seconds(option, value)
        case "--state-dir": stateDirectory = value
        case "--report": reportPath = value
        case "--control": controlPath = value
        case "--admission":
            let descriptor: Int32 = try number(option, value)
            guard descriptor > 2 else { throw UsageError("--admission \(value): not a descriptor above 2") }
            admission = descriptor
        case "--sharing", "--domain", "--share-cpu", "--window", "--broker", "--trace-share":
            try setSharing(option, value)
        case "--image": imageLabel = value
        #if DEBUG
            case "--inject":
                guard let injection = FaultInjection(value) else {
                    throw UsageError("--inject \(value): see FaultInjection.swift")
                }
                sharing.injection = injection
        #endif
        case "--log-level":
            guard let level = Logger.Level(rawValue: value) else {
                throw UsageError("--log-level \(value) is unknown")
            }
            logLevel = level
        default: throw UsageError("unknown option \(option)")
        }
    }

    private mutating func setSharing(_ option: String, _ value: String) throws(UsageError) {
        switch option {
        case "--sharing":
            guard ["builtin", "waiting", "off"].contains(value) else {
                throw UsageError("--sharing \(value): use builtin, waiting or off")
            }
            sharing.isOn = value != "off"
            sharing.waits = value == "waiting"
        case "--domain": sharing.domain = value
        case "--window": sharing.window = try choice(option, value)
        case "--broker": sharing.brokerPath = value
        case "--trace-share": sharing.tracePath = value
        default:
            let percent = value.hasSuffix("%") ? String(value.dropLast()) : value
            guard let number = Double(percent), number > 0, number <= 100 else {
                throw UsageError("--share-cpu \(value): a percentage of one CPU, above 0 and up to 100")
            }
            sharing.cpuPercent = number
        }
    }

    private static func serial(_ value: String) throws(UsageError) -> Serial {
        switch value {
        case "stdio": return .stdio
        case "none": return .none
        case _ where value.hasPrefix("file:") && value.count > 5: return .file(String(value.dropFirst(5)))
        default: throw UsageError("--serial \(value): use stdio, none or file:PATH")
        }
    }

    private func number<T: FixedWidthInteger>(_ option: String, _ value: String) throws(UsageError) -> T {
        guard let number = T(value) else {
            throw UsageError("\(option) \(value): not a whole number in range")
        }
        return number
    }

    private func choice<T: RawRepresentable<String> & CaseIterable>(
        _ option: String, _ value: String
    ) throws(UsageError) -> T {
        guard let choice = T(rawValue: value) else {
            let all = T.allCases.map(\.rawValue).joined(separator: ", ")
            throw UsageError("\(option) \(value): use one of \(all)")
        }
        return choice
    }

    private func seconds(_ option: String, _ value: String) throws(UsageError) -> Double {
        guard let seconds = Double(value), seconds >= 0, seconds < 1e9 else {
            throw UsageError("\(option) \(value): not a number of seconds")
        }
        return seconds
    }
}

/// A mistake in the arguments.
struct UsageError: Error, CustomStringConvertible {
    let description: String
    init(_ description: String) { self.description = description }
}

extension String {
    /// Fit to be a file name in the state directory.
    var isPlainName: Bool {
        !isEmpty && utf8.count <= 64 && !hasPrefix(".") && !hasPrefix("-")
            && utf8.allSatisfy { byte in
                switch byte {
                case UInt8(ascii: "a")...UInt8(ascii: "z"), UInt8(ascii: "A")...UInt8(ascii: "Z"),
                    UInt8(ascii: "0")...UInt8(ascii: "9"), UInt8(ascii: "."), UInt8(ascii: "_"),
                    UInt8(ascii: "-"):
                    true
                default: false
                }
            }
    }
}
