internal import GuestMemory
internal import ImageFormats

extension VMMInvocation {
    /// One option: how it is written, and how it is read.
    private struct Option {
        let name: String
        /// What stands behind it in the usage; nil: it is a flag and has no value.
        let value: String?
        /// The values with which it is passed, each time once; none: it is not passed. A flag has empty ones.
        let write: @Sendable (VMMInvocation) -> [String]
        let read: @Sendable (inout VMMInvocation, String) throws(UsageError) -> Void
    }

    private static func flag(
        _ name: String, _ path: WritableKeyPath<VMMInvocation, Bool> & Sendable
    ) -> Option {
        Option(name: name, value: nil, write: { $0[keyPath: path] ? [""] : [] }) { result, _ in
            result[keyPath: path] = true
        }
    }

    private static func text(
        _ name: String, _ value: String, _ path: WritableKeyPath<VMMInvocation, String?> & Sendable
    ) -> Option {
        Option(name: name, value: value, write: { $0[keyPath: path].map { [$0] } ?? [] }) { result, text in
            result[keyPath: path] = text
        }
    }

    private static func number<Number: FixedWidthInteger & Sendable>(
        _ name: String, _ value: String, _ path: WritableKeyPath<VMMInvocation, Number?> & Sendable
    ) -> Option {
        Option(name: name, value: value, write: { $0[keyPath: path].map { ["\($0)"] } ?? [] }) {
            (result, text) throws(UsageError) in result[keyPath: path] = try integer(name, text)
        }
    }

    private static func seconds(
        _ name: String, _ path: WritableKeyPath<VMMInvocation, Double?> & Sendable
    ) -> Option {
        Option(name: name, value: "SECONDS", write: { $0[keyPath: path].map { [short($0)] } ?? [] }) {
            (result, text) throws(UsageError) in
            guard let seconds = Double(text), seconds >= 0, seconds < 1e9 else {
                throw UsageError("\(name) \(text): not a number of seconds")
            }
            result[keyPath: path] = seconds
        }
    }

    private static func choice<Choice: RawRepresentable<String> & CaseIterable & Sendable>(
        _ name: String, _ path: WritableKeyPath<VMMInvocation, Choice?> & Sendable
    ) -> Option {
        Option(
            name: name, value: names(Choice.self, "|"),
            write: { $0[keyPath: path].map { [$0.rawValue] } ?? [] }
        ) { (result, text) throws(UsageError) in result[keyPath: path] = try pick(name, text) }
    }

    /// In the order in which they are written.
    private static var options: [Option] {
        [
            Option(name: "--name", value: "NAME", write: { [$0.name] }) { (result, text) throws(UsageError) in
                guard GuestName.isValid(text) else {
                    throw UsageError(
                        "--name \(text): use letters, digits, '.', '_' and '-', at most \(GuestName.maximumLength)"
                    )
                }
                result.name = text
            },
            Option(name: "--memory", value: "BYTES", write: { ["\($0.memoryBytes)"] }) {
                (result, text) throws(UsageError) in result.memoryBytes = try integer("--memory", text)
            },
            Option(name: "--cpus", value: "N", write: { ["\($0.cpuCount)"] }) {
                (result, text) throws(UsageError) in result.cpuCount = try integer("--cpus", text)
            },
            Option(name: "--kernel", value: "PATH", write: { [$0.kernel] }) { $0.kernel = $1 },
            Option(name: "--boot", value: names(BootProtocol.self, "|"), write: { [$0.boot.rawValue] }) {
                (result, text) throws(UsageError) in result.boot = try pick("--boot", text)
            },
            Option(name: "--initrd", value: "PATH", write: { $0.initrds }) { $0.initrds.append($1) },
            text("--cmdline", "TEXT", \.commandLine),
            Option(name: "--serial", value: "stdio|none|file:PATH", write: { [$0.serial.argument] }) {
                (result, text) throws(UsageError) in
                guard let serial = SerialDestination(text) else {
                    throw UsageError("--serial \(text): use stdio, none or file:PATH")
                }
                result.serial = serial
            },
            flag("--eof-to-guest", \.sendsEndOfFile), seconds("--timeout", \.timeoutSeconds),
            seconds("--grace", \.graceSeconds),
            Option(name: "--log-level", value: names(LogLevel.self, "|"), write: { [$0.logLevel.rawValue] }) {
                (result, text) throws(UsageError) in result.logLevel = try pick("--log-level", text)
            },
            text("--state-dir", "DIR", \.stateDirectory), number("--seed", "N", \.seed),
            number("--guest-index", "N", \.guestIndex), text("--arguments", "TEXT", \.payloadArguments),
            choice("--dirty-log", \.dirtyLog), text("--report", "PATH", \.report),
            Option(name: "--image", value: "LABEL", write: { $0.image.map { [OneLine.label($0)] } ?? [] }) {
                $0.image = $1
            },
            text("--control", "SOCKET", \.control), flag("--die-with-parent", \.diesWithParent),
            flag("--overcommit", \.overcommits),
            Option(
                name: "--admission", value: "DESCRIPTOR", write: { $0.admission.map { ["\($0)"] } ?? [] }
            ) { (result, text) throws(UsageError) in
                let number: Int32 = try integer("--admission", text)
                guard number > 2 else { throw UsageError("--admission \(text): not a descriptor above 2") }
                result.admission = number
            },
            Option(name: "--confine", value: "on|off", write: { $0.confines ? [] : ["off"] }) {
                (result, text) throws(UsageError) in
                guard ["on", "off"].contains(text) else {
                    throw UsageError("--confine \(text): use on or off")
                }
                result.confines = text == "on"
            },
            flag("--entropy", \.hasEntropy), choice("--ram", \.ram), text("--kvm", "PATH", \.kvm),
        ] + sharingOptions + debugOptions
    }

    private static var sharingOptions: [Option] {
        func ifOn(_ write: @escaping @Sendable (SharingChoice) -> String?)
            -> @Sendable (VMMInvocation)
            -> [String]
        {
            { $0.sharing.mode == .builtin ? write($0.sharing).map { [$0] } ?? [] : [] }
        }
        return [
            Option(
                name: "--sharing", value: "builtin|waiting|off",
                write: ifOn { $0.waits ? "waiting" : "builtin" }
            ) { (result, text) throws(UsageError) in
                guard ["builtin", "waiting", "off"].contains(text) else {
                    throw UsageError("--sharing \(text): use builtin, waiting or off")
                }
                result.sharing.mode = text == "off" ? .off : .builtin
                result.sharing.waits = text == "waiting"
            },
            Option(
                name: "--window", value: names(SharingChoice.Window.self, "|"),
                write: ifOn { $0.window.rawValue }
            ) { (result, text) throws(UsageError) in result.sharing.window = try pick("--window", text) },
            Option(name: "--domain", value: "NAME", write: ifOn { $0.domain }) { $0.sharing.domain = $1 },
            Option(name: "--share-cpu", value: "PERCENT", write: ifOn { $0.cpuPercent.map { "\($0)" } }) {
                (result, text) throws(UsageError) in
                guard let percent = SharingChoice.percentage(text) else {
                    throw UsageError(
                        "--share-cpu \(text): a percentage of one CPU, above 0 and up to 100")
                }
                result.sharing.cpuPercent = percent
            },
            Option(name: "--trace-share", value: "FILE", write: ifOn { $0.traceFile }) {
                $0.sharing.traceFile = $1
            },
            Option(name: "--broker", value: "SOCKET", write: ifOn { $0.broker }) { $0.sharing.broker = $1 },
        ]
    }

    private static var debugOptions: [Option] {
        #if DEBUG
            [text("--inject", "FAULTS", \.injection)]
        #else
            []
        #endif
    }

    /// The words behind the program's name.
    public var arguments: [String] {
        Self.options.flatMap { option in
            option.write(self).flatMap { option.value == nil ? [option.name] : [option.name, $0] }
        }
    }

    /// Reads the words behind the program's name.
    public init(arguments: [String]) throws(UsageError) {
        self.init()
        let options = Self.options
        var rest = arguments[...]
        while let word = rest.popFirst() {
            guard word.hasPrefix("--") else { throw UsageError("unexpected argument '\(word)'") }
            guard let option = options.first(where: { $0.name == word }) else {
                throw UsageError("unknown option \(word)")
            }
            if option.value == nil {
                try option.read(&self, "")
            } else {
                guard let value = rest.popFirst() else { throw UsageError("\(word) needs a value") }
                try option.read(&self, value)
            }
        }
        guard !kernel.isEmpty else { throw UsageError("--kernel is missing") }
        guard sharing.mode == .off || ram ?? .memoryFile == .memoryFile else {
            throw UsageError("--sharing builtin works on memory files: use --ram memory-file")
        }
    }

    /// For people who start it by hand.
    public static var usage: String {
        let words = options.map { "[" + $0.name + ($0.value.map { " " + $0 } ?? "") + "]" }
        var lines = ["usage: mingle-vmm"]
        for word in words {
            if lines[lines.count - 1].utf8.count + word.utf8.count > 110 { lines.append("      ") }
            lines[lines.count - 1] += " " + word
        }
        return lines.joined(separator: "\n")
            + "\nRuns one guest. Made to be started by `mingle run`, which has the defaults and the help."
    }

    // MARK: values

    private static func integer<Number: FixedWidthInteger>(_ option: String, _ text: String)
        throws(UsageError) -> Number
    {
        guard let number = Number(text) else {
            throw UsageError("\(option) \(text): not a whole number in range")
        }
        return number
    }

    private static func pick<Choice: RawRepresentable<String> & CaseIterable>(
        _ option: String, _ text: String
    ) throws(UsageError) -> Choice {
        guard let choice = Choice(rawValue: text) else {
            throw UsageError("\(option) \(text): use one of \(names(Choice.self, ", "))")
        }
        return choice
    }

    private static func names<Choice: RawRepresentable<String> & CaseIterable>(
        _: Choice.Type, _ separator: String
    ) -> String { Choice.allCases.map(\.rawValue).joined(separator: separator) }

    /// Without a fraction where there is none.
    private static func short(_ seconds: Double) -> String {
        Int(exactly: seconds).map { "\($0)" } ?? "\(seconds)"
    }
}
