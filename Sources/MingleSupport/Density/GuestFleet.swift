import CLinux
internal import GuestMemory
internal import LinuxHost
internal import VMMProtocol

/// The guests of one run: started, asked, ended and reaped together.
final class GuestFleet {
    struct Member {
        let name: String
        let process: Int32
        let serial: String
        let errors: String
        let control: String
        var client: ControlClient?
        var ending: HostProcess.Ending?
        var bootSeconds: Double?

        /// The end of what it wrote on its serial line.
        var latestOutput: String {
            String((SystemCall.text(of: serial, limit: 1 << 20) ?? "").suffix(8192))
        }
    }

    private(set) var members: [Member] = []
    /// How long an answer may take: the digests of a guest in an emulated machine on a busy host take long.
    private static let answerSeconds = 60.0
    private let registry: StateDirectory

    /// - Parameter registry: where the guests are registered.
    init(registry: StateDirectory) { self.registry = registry }

    deinit { end() }

    func start(_ invocation: VMMInvocation, program: String, output: String) throws(SupportError) {
        var invocation = invocation
        let errors = output + ".errors"
        let control = try SocketPath.checked(registry.controlPath + "/" + invocation.name)
        invocation.control = control
        invocation.serial = .file(path: output)
        invocation.stateDirectory = registry.path
        invocation.diesWithParent = true
        do throws(LinuxError) {
            let process = try HostProcess.spawn(
                program, invocation.arguments, name: "mingle-vmm", errors: .onto(errors), leads: .group)
            members.append(
                Member(
                    name: invocation.name, process: process, serial: output, errors: errors, control: control)
            )
        } catch { throw .systemCall(operation: "start", subject: program, code: error.code) }
    }

    /// Notes who has ended.
    func look() {
        for index in members.indices where members[index].ending == nil {
            members[index].ending = HostProcess.collect(members[index].process, wait: false)
        }
    }

    /// - Throws: when one has ended, with its last words.
    func checkAlive() throws(SupportError) {
        look()
        guard let member = members.first(where: { $0.ending != nil }), let ending = member.ending else {
            return
        }
        let said =
            [member.errors, member.serial]
            .compactMap { (SystemCall.text(of: $0) ?? "").split(whereSeparator: \.isNewline).last }
            .first.map { ": \($0)" } ?? ""
        throw .guest(name: member.name, reason: "it ended before its time (\(Self.words(ending)))\(said)")
    }

    /// Gives a guest that seems to be ending the time to.
    /// - Throws: when one has ended.
    func waitForEnd(milliseconds: Int) throws(SupportError) {
        for _ in 0..<max(1, milliseconds / 10) {
            try checkAlive()
            SystemCall.sleep(milliseconds: 10)
        }
    }

    /// Waits until every guest that has not ended is registered, and thereby counted by ``Admission``; not longer than so
    /// many seconds, since a guest that comes late is only counted late.
    func waitUntilRegistered(seconds: UInt64) throws(SupportError) {
        let deadline = Clock.monotonic.nanoseconds + seconds * 1_000_000_000
        while Clock.monotonic.nanoseconds < deadline {
            look()
            let known = Set(try GuestRegistry(directory: registry).guests().running.map(\.name))
            if members.allSatisfy({ $0.ending != nil || known.contains($0.name) }) { return }
            SystemCall.sleep(milliseconds: 10)
        }
    }

    static func words(_ ending: HostProcess.Ending) -> String {
        switch ending {
        case .exited(let status): "status \(status)"
        case .killed(let signal): "killed by signal \(signal)"
        }
    }

    /// Connects to those that can be reached, and asks whether they are up.
    /// - Returns: how many are.
    func countUp() throws(SupportError) -> Int {
        for index in members.indices where members[index].bootSeconds == nil {
            if members[index].client == nil {
                guard SystemCall.exists(members[index].control) else { continue }
                members[index].client = try? ControlClient(
                    guest: members[index].name, path: members[index].control, seconds: Self.answerSeconds)
            }
            members[index].bootSeconds = try members[index].client?.statistics().bootSeconds
        }
        return members.count { $0.bootSeconds != nil }
    }

    /// Asks every guest.
    func each<Answer>(_ body: (ControlClient) throws(SupportError) -> Answer) throws(SupportError) -> [Answer]
    {
        var answers: [Answer] = []
        for member in members {
            guard let client = member.client else {
                throw .guest(name: member.name, reason: "it is not connected")
            }
            answers.append(try body(client))
        }
        return answers
    }

    /// Presses the power buttons, waits, ends who does not hear.
    /// - Parameter seconds: how long they may take together.
    func powerOff(seconds: Double) {
        for index in members.indices { members[index].client = nil }
        for member in members where member.ending == nil { HostProcess.send(SIGTERM, to: member.process) }
        let deadline = Clock.monotonic.nanoseconds + UInt64(seconds * 1e9)
        while Clock.monotonic.nanoseconds < deadline {
            look()
            if members.allSatisfy({ $0.ending != nil }) { return }
            SystemCall.sleep(milliseconds: 10)
        }
        end()
    }

    /// Kills and reaps whoever is left.
    func end() {
        look()
        for index in members.indices where members[index].ending == nil {
            HostProcess.send(SIGKILL, to: members[index].process)
        }
        for index in members.indices {
            if members[index].ending == nil {
                members[index].ending = HostProcess.collect(members[index].process, wait: true)
            }
            // Those that were killed could not put these away.
            SystemCall.remove(members[index].control)
            SystemCall.remove(registry.guestsPath + "/" + members[index].name)
        }
    }
}
