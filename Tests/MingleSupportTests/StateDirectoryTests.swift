import LinuxHost
import Glibc
import TestSupport
import Testing

@testable import MingleSupport
import VMMProtocol

@Suite struct StateDirectoryTests {
    let temporary: TemporaryDirectory

    init() throws { temporary = try TemporaryDirectory() }

    @Test func locationFollowsTheRuntimeDirectory() {
        let user = getuid()
        #expect(
            StateDirectory.location(runtimeDirectory: temporary.path, user: user).path == temporary.path
                + "/mingle")
        #expect(
            StateDirectory.location(runtimeDirectory: temporary.path + "/", user: user).path
                == temporary.path + "/mingle")
        #expect(StateDirectory.location(runtimeDirectory: nil, user: 12).path == "/tmp/mingle-12")
        #expect(StateDirectory.location(runtimeDirectory: "relative", user: 12).path == "/tmp/mingle-12")
        #expect(
            StateDirectory.location(runtimeDirectory: temporary.path + "/absent", user: 12).path
                == "/tmp/mingle-12")
        // Somebody else's directory is not used.
        #expect(
            StateDirectory.location(runtimeDirectory: temporary.path, user: user + 1).path
                == "/tmp/mingle-\(user + 1)")
    }

    @Test func preparesPrivateFoldersAgainAndAgain() throws {
        let state = try temporary.state()
        try state.prepare()
        for folder in [state.path, state.guestsPath, state.terminalPath] {
            let status = try SystemCall.linkStatus(folder).get()
            #expect(status.isDirectory && status.permissions == 0o700)
        }
        #expect(try state.isPresent())
        #expect(try !StateDirectory(path: temporary.path + "/absent").isPresent())
    }

    @Test func refusesSymbolicLinks() throws {
        let state = StateDirectory(path: temporary.path + "/link")
        try #require(symlink(temporary.path, state.path) == 0)
        expectRefusal(state, saying: "symbolic link")
    }

    @Test func refusesFiles() throws {
        let state = StateDirectory(path: try temporary.write("file", ""))
        expectRefusal(state, saying: "not a directory")
    }

    @Test(arguments: [0o755, 0o770, 0o701, 0o500, 0o1700] as [mode_t])
    func refusesOtherModes(_ mode: mode_t) throws {
        let state = try temporary.state()
        try #require(chmod(state.guestsPath, mode) == 0)
        expectRefusal(state, saying: "chmod 700 \(state.guestsPath)")
    }

    @Test(.enabled(if: getuid() == 0, "only root can give a directory to somebody else"))
    func refusesOtherOwners() throws {
        let state = try temporary.state()
        try #require(chown(state.path, 12345, 0) == 0)
        expectRefusal(state, saying: "belongs to user 12345")
    }

    private func expectRefusal(_ state: StateDirectory, saying text: String) {
        for attempt in [{ try state.prepare() }, { _ = try state.isPresent() }] {
            let error = #expect(throws: SupportError.self) { try attempt() }
            #expect(error?.description.contains(text) == true)
        }
    }
}

@Suite struct GuestRecordTests {
    @Test func textRoundTrips() throws {
        for state in GuestRecord.State.allCases {
            let original = record(state: state)
            #expect(try GuestRecord(text: original.text, path: "x") == original)
        }
    }

    @Test func aRecordSendsNobodyElsewhere() {
        let directory = StateDirectory(path: "/run/user/1/mingle")
        func isTrusted(_ socket: String) -> Bool { LostBroker.isTrusted(socket, in: directory) }
        #expect(isTrusted("/run/user/1/mingle/broker.sock"))
        #expect(isTrusted("/run/user/1/mingle/density-7/broker.sock"))
        for socket in [
            "/home/me/.ssh/broker.sock", "/run/user/1/mingle/../x/broker.sock", "/run/user/1/mingle/other",
            "/run/user/1/mingle-2/broker.sock", "broker.sock", "",
        ] { #expect(!isTrusted(socket), "\(socket)") }
    }

    @Test func aRecordsImageMovesNoCursor() throws {
        let text = record(process: 7).text.replacing("image=debian", with: "image=\u{1B}[2Jdebian")
        #expect(try !GuestRecord(text: text, path: "x").image.contains("\u{1B}"))
    }

    @Test func textIsTheDocumentedOne() {
        #expect(
            record(process: 7).text == """
                pid=7
                pid_namespace=\(GuestRecord.localNamespace)
                name=web
                memory_bytes=134217728
                cpus=2
                image=debian 6.1
                started_unix_ns=1700000000000000000
                state=running
                pad=.
                guest_index=3

                """)
    }

    @Test func uptimeIsThatOfAClockThatIsNeverSet() throws {
        var record = record()
        // Whatever the calendar said when it was started, and says now.
        for unix: UInt64 in [0, 1_700_000_000_000_000_000, .max] {
            record.startedUnixNanoseconds = unix
            record.startedBootNanoseconds = 5_000_000_000
            #expect(record.uptimeSeconds(boot: 65_900_000_000) == 60)
            #expect(record.uptimeSeconds(boot: 4_000_000_000) == 0)
        }
        #expect(try GuestRecord(text: record.text, path: "x") == record)
        #expect(record.text.contains("\nstarted_boot_ns=5000000000\n"))
        record.startedBootNanoseconds = nil
        #expect(record.uptimeSeconds(boot: 65_900_000_000) == nil)
    }

    @Test func controlCharactersCannotForgeLines() throws {
        var forged = record()
        forged.image = "x\npid=1"
        let read = try GuestRecord(text: forged.text, path: "x")
        #expect(read.process == forged.process && read.image == "x?pid=1")
    }

    @Test func unknownKeysAndEqualSignsInValues() throws {
        let text = record().text + "newer=thing\nno equals sign\n"
        #expect(try GuestRecord(text: text, path: "x") == record())
        var other = record()
        other.image = "a=b=c"
        #expect(try GuestRecord(text: other.text, path: "x").image == "a=b=c")
    }

    @Test(arguments: ["pid", "name", "memory_bytes", "cpus", "started_unix_ns", "state"])
    func missingKeysAreNamed(_ key: String) {
        let lines = record().text.split(separator: "\n").filter { !$0.hasPrefix(key + "=") }
        let error = #expect(throws: SupportError.self) {
            try GuestRecord(text: lines.joined(separator: "\n"), path: "/p")
        }
        #expect(error?.description == "/p: no usable '\(key)' in the record of a guest")
    }

    @Test(arguments: ["pid=0", "pid=-4", "pid=x", "state=flying", "cpus=many", "memory_bytes=-1"])
    func badValuesAreRefused(_ line: String) {
        #expect(throws: SupportError.self) { try GuestRecord(text: record().text + line, path: "x") }
    }
}

@Suite struct GuestRegistryTests {
    let temporary: TemporaryDirectory
    let state: StateDirectory
    let registry: GuestRegistry

    init() throws {
        temporary = try TemporaryDirectory()
        state = try temporary.state()
        registry = GuestRegistry(directory: state)
    }

    private func register(_ record: GuestRecord) throws -> String {
        try temporary.write("mingle/guests/" + record.name, record.text)
    }

    @Test func lockedRecordsAreRunning() throws {
        let lock = try HeldLock(try register(record()))
        #expect(try registry.probe("web") == .running(record()))
        #expect(try registry.guests().running == [record()])
        lock.release()
        #expect(try registry.probe("web") == .absent)
        #expect(!SystemCall.exists(state.guestsPath + "/web"))
    }

    @Test func unlockedRecordsAreRemovedEvenIfTheirProcessLives() throws {
        let path = try register(record(process: getpid()))
        #expect(try registry.guests().running.isEmpty)
        #expect(!SystemCall.exists(path))
    }

    @Test func readersDoNotTakeEachOtherForGuests() throws {
        let path = try register(record())
        let reader = open(path, O_RDONLY)
        defer { close(reader) }
        try #require(flock(reader, LOCK_SH | LOCK_NB) == 0)
        // Another reader looks: the record is not running, and not ours to remove while it does.
        guard case .unreadable = try registry.probe("web") else {
            Issue.record("a record that a reader holds was taken for a guest or removed")
            return
        }
        flock(reader, LOCK_UN)
        #expect(try registry.probe("web") == .absent)
    }

    @Test func aLockedRecordOfADeadProcessIsNoGuest() throws {
        var child: ChildProcess? = try startShell("exit 0")
        let process = try #require(child?.identifier)
        child = nil
        let lock = try HeldLock(try register(record(process: process)))
        defer { lock.release() }
        guard case .unreadable(let error) = try registry.probe("web") else {
            Issue.record("a dead process was taken for a guest")
            return
        }
        #expect(error.description.contains("process \(process) is not there"))
    }

    @Test func halfWrittenRecordsAreReported() throws {
        let lock = try HeldLock(try temporary.write("mingle/guests/half", "pid=1\n"))
        defer { lock.release() }
        let found = try registry.guests()
        #expect(found.running.isEmpty && found.unreadable.count == 1)
    }

    @Test func aRecordUnderAnotherNameIsRefused() throws {
        let lock = try HeldLock(try temporary.write("mingle/guests/other", record().text))
        defer { lock.release() }
        guard case .unreadable = try registry.probe("other") else {
            Issue.record("the record of web was accepted as other")
            return
        }
    }

    @Test func aReplacedRecordIsNotRemoved() throws {
        let path = try register(record())
        let old = open(path, O_RDONLY)
        defer { close(old) }
        try #require(unlink(path) == 0)
        _ = try register(record(state: .booting))
        #expect(!GuestRegistry.removeIfUnused(path, locked: old))
        #expect(SystemCall.exists(path))
    }

    @Test func symbolicLinksAreNoGuestsAndNotFollowed() throws {
        let target = try temporary.write("target", "x")
        try #require(symlink(target, state.guestsPath + "/web") == 0)
        #expect(try registry.probe("web") == .absent)
        #expect(try registry.guests().unreadable.isEmpty)
        #expect(SystemCall.exists(target))
    }

    @Test func anAbsentDirectoryHasNoGuests() throws {
        let none = GuestRegistry(directory: StateDirectory(path: temporary.path + "/none"))
        #expect(try none.guests().running.isEmpty)
        #expect(try none.probe("web") == .absent)
    }
}

@Suite struct GuestProcessTests {
    let temporary: TemporaryDirectory
    let registry: GuestRegistry

    init() throws {
        temporary = try TemporaryDirectory()
        registry = GuestRegistry(directory: try temporary.state())
    }

    private func second(after seconds: Double) -> UInt64 {
        Clock.monotonic.nanoseconds + UInt64(seconds * 1e9)
    }

    @Test func signalsAndWaits() throws {
        let child = try child(holding: try temporary.write("mingle/guests/web", ""))
        defer { withExtendedLifetime(child) {} }
        let process = try #require(try GuestProcess.open("web", in: registry))
        #expect(try !process.wait(until: second(after: 0.05)))
        #expect(try process.send(signal: StopSignal.terminate))
        #expect(try process.wait(until: second(after: 10)))
    }

    @Test func aStaleRecordIsNeverSignalled() throws {
        let child = try startShell("exec sleep 100")
        try temporary.write("mingle/guests/web", record(process: child.identifier).text)
        #expect(try GuestProcess.open("web", in: registry) == nil)
        #expect(kill(child.identifier, 0) == 0)
        #expect(child.finish() == nil)
    }

    /// The number is that of an innocent process here; the guest's own is in another PID namespace.
    @Test func aNumberOfAnotherNamespaceIsNeverSignalled() throws {
        let child = try startShell("exec sleep 100")
        for namespace: UInt64 in [0, 1] {
            var foreign = record(process: child.identifier)
            foreign.processNamespace = namespace
            let lock = try HeldLock(try temporary.write("mingle/guests/web", foreign.text))
            defer { lock.release() }
            #expect(try registry.probe("web") == .running(foreign))
            #expect(throws: SupportError.self) { try GuestProcess.open("web", in: registry) }
        }
        #expect(child.finish() == nil)
    }

    /// A record claims a number; only the kernel says who holds its lock.
    @Test func whoDoesNotHoldItsRecordIsNeverSignalled() throws {
        let child = try startShell("exec sleep 100")
        let lock = try HeldLock(
            try temporary.write("mingle/guests/web", record(process: child.identifier).text))
        defer { lock.release() }
        let error = #expect(throws: SupportError.self) { try GuestProcess.open("web", in: registry) }
        #expect(error?.description.contains("process \(getpid()) holds it") == true)
        #expect(child.finish() == nil)
    }

    /// A number that no process has here is no reason to doubt a record that somebody holds.
    @Test func aGuestOfAnotherNamespaceRuns() throws {
        var child: ChildProcess? = try startShell("exit 0")
        var foreign = record(process: try #require(child?.identifier))
        foreign.processNamespace = 1
        child = nil
        let lock = try HeldLock(try temporary.write("mingle/guests/web", foreign.text))
        defer { lock.release() }
        #expect(try registry.guests().running == [foreign])
        #expect(registry.localProcess(of: foreign) == nil)
        #expect(registry.localProcess(of: record()) == getpid())
        // Nobody knows what it holds, nor where: it may need all of its memory in any group.
        #expect(Admission.Promise(bytes: 1, membership: nil).isWithin("/some/group"))
    }

    /// The process that listens at the control socket is the guest, whatever its number here.
    @Test func theControlSocketProvesTheProcess() throws {
        var own = record()
        own.processNamespace = 1
        let lock = try HeldLock(try temporary.write("mingle/guests/web", own.text))
        let socket = try ListeningSocket(registry.directory.controlPath + "/web")
        defer { socket.close() }
        #expect(try GuestProcess.open("web", in: registry)?.number == getpid())
        #expect(registry.localProcess(of: own) == getpid())
        // A record of this namespace that names another process is contradicted by it.
        lock.release()
        let child = try startShell("exec sleep 100")
        try temporary.write("mingle/guests/web", record(process: child.identifier).text)
        let second = try HeldLock(registry.directory.guestsPath + "/web")
        defer { second.release() }
        #expect(throws: SupportError.self) { try GuestProcess.open("web", in: registry) }
        #expect(child.finish() == nil)
    }

    @Test func anEndedProcessTakesNoSignal() throws {
        var child: ChildProcess? = try MingleSupportTests.child(
            holding: try temporary.write("mingle/guests/web", ""))
        defer { withExtendedLifetime(child) {} }
        let process = try #require(try GuestProcess.open("web", in: registry))
        child = nil
        #expect(try !process.send(signal: StopSignal.kill))
        #expect(try process.wait(until: 0))
    }
}
