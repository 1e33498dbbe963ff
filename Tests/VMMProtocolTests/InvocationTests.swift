import GuestMemory
import ImageFormats
import TestSupport
import Testing
import VMMProtocol

/// What one end writes, the other reads: over random values of everything that can be said.
@Suite struct InvocationTests {
    private static func random(_ random: inout SeededGenerator) -> VMMInvocation {
        func maybe<Value>(_ value: @autoclosure () -> Value) -> Value? {
            Bool.random(using: &random) ? value() : nil
        }
        func word() -> String {
            ["/a b", "--kernel", "x=y,z", "ünicode \u{FFFD}", "\"", "-", "line\nline"].randomElement(
                using: &random)!
        }
        func number<Number: FixedWidthInteger>(_ range: ClosedRange<Number>) -> Number {
            [range.lowerBound, range.upperBound, .random(in: range, using: &random)].randomElement(
                using: &random)!
        }
        var result = VMMInvocation(
            name: ["a", "Guest-1.b_c"].randomElement(using: &random)!, memoryBytes: number(0...UInt64.max),
            cpuCount: number(-1...Int.max), kernel: word())
        result.boot = BootProtocol.allCases.randomElement(using: &random)!
        result.initrds = (0..<number(0...3)).map { _ in word() }
        result.commandLine = maybe(word())
        result.serial = [.standardStreams, .none, .file(path: word())].randomElement(using: &random)!
        result.sendsEndOfFile = Bool.random(using: &random)
        result.timeoutSeconds = maybe([0, 7, 0.25, 999_999_999].randomElement(using: &random)!)
        result.graceSeconds = maybe([0, 7, 1.5].randomElement(using: &random)!)
        result.logLevel = LogLevel.allCases.randomElement(using: &random)!
        result.stateDirectory = maybe(word())
        result.seed = maybe(number(0...UInt64.max))
        result.guestIndex = maybe(number(0...UInt32.max))
        result.payloadArguments = maybe(word())
        result.dirtyLog = maybe(DirtyLogMode.allCases.randomElement(using: &random)!)
        result.report = maybe(word())
        result.image = maybe("debian 6.1")
        result.control = maybe(word())
        result.diesWithParent = Bool.random(using: &random)
        result.confines = Bool.random(using: &random)
        result.hasEntropy = Bool.random(using: &random)
        result.overcommits = Bool.random(using: &random)
        result.admission = maybe(number(3...Int32.max))
        result.kvm = maybe(word())
        if Bool.random(using: &random) {
            result.sharing.mode = .builtin
            result.sharing.waits = Bool.random(using: &random)
            result.sharing.domain = maybe(word())
            result.sharing.cpuPercent = maybe([0.1, 10, 100].randomElement(using: &random)!)
            result.sharing.window = SharingChoice.Window.allCases.randomElement(using: &random)!
            result.sharing.traceFile = maybe(word())
            result.sharing.broker = maybe(word())
        } else {
            result.ram = maybe(GuestMemory.Backing.allCases.randomElement(using: &random)!)
        }
        return result
    }

    @Test func whatIsWrittenIsRead() throws {
        var generator = SeededGenerator(for: "invocations")
        for _ in 0..<2000 {
            let invocation = Self.random(&generator)
            #expect(try VMMInvocation(arguments: invocation.arguments) == invocation)
        }
    }

    /// Every option that is ever written is in the usage, and each is understood where it says what is wrong with it.
    @Test func everyOptionIsKnown() throws {
        var generator = SeededGenerator(for: "options")
        var seen: Set<String> = []
        for _ in 0..<300 {
            seen.formUnion(
                Self.random(&generator).arguments.filter { VMMInvocation.usage.contains("[\($0)") })
        }
        let all = VMMInvocation.usage.split(separator: "[").dropFirst().map { option in
            String(option.prefix { $0 != " " && $0 != "]" })
        }
        #expect(all.count >= 28 && Set(all).subtracting(["--inject"]) == seen.intersection(all))
    }

    @Test(
        arguments: [
            (["--memory", "x"], "--memory x: not a whole number"), (["--cpus"], "--cpus needs a value"),
            (["--boot", "grub"], "use one of auto, pvh"),
            (["--serial", "tty"], "use stdio, none or file:PATH"),
            (["--timeout", "-1"], "not a number of seconds"),
            (["--share-cpu", "0"], "above 0 and up to 100"),
            (["--admission", "2"], "not a descriptor above 2"),
            (["--sharing", "ksm"], "use builtin, waiting or off"),
            (["--name", "a/b"], "--name a/b: use letters"), (["--log-level", "loud"], "use one of trace"),
            (["--frobnicate", "1"], "unknown option --frobnicate"),
            (["kernel"], "unexpected argument 'kernel'"),
            (["--cpus", "1"], "--kernel is missing"),
            (
                ["--kernel", "/k", "--sharing", "builtin", "--ram", "anonymous-mergeable"],
                "use --ram memory-file"
            ),
        ])
    func mistakesAreNamed(words: [String], reason: String) {
        let error = #expect(throws: UsageError.self) { try VMMInvocation(arguments: words) }
        #expect(error?.description.contains(reason) == true, "\(String(describing: error))")
    }
}

@Suite struct RecordTests {
    @Test func whatIsWrittenIsRead() throws {
        var generator = SeededGenerator(for: "records")
        for _ in 0..<1000 {
            let record = GuestRecord(
                name: "guest-1", process: .random(in: 1...Int32.max, using: &generator),
                memoryBytes: .random(in: 0...UInt64.max, using: &generator),
                cpuCount: .random(in: 0...Int.max, using: &generator),
                image: ["a=b", "payload:hello", "", "/a b"].randomElement(using: &generator)!,
                startedUnixNanoseconds: .random(in: 0...UInt64.max, using: &generator),
                startedBootNanoseconds: Bool.random(using: &generator) ? generator.next() : nil,
                state: GuestRecord.State.allCases.randomElement(using: &generator)!,
                guestIndex: .random(in: 0...UInt32.max, using: &generator),
                processNamespace: generator.next(),
                broker: Bool.random(using: &generator) ? "/run/x y/b" : nil)
            #expect(try GuestRecord(text: record.text) == record)
        }
    }
}
