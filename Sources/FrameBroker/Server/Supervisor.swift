internal import CLinux
internal import GuestMemory

/// The program `mingle-broker`, in three roles:
///
///   start      -> starts `supervise` in a session of its own and ends, so that no guest is its parent
///   supervise  -> holds the lock and the listening socket, starts `work`, and starts it again when it fails
///   work       -> the broker itself; the kernel kills it when its supervisor dies
///
/// A worker that failed took all it knew with it: its successor begins anew, and guests find it at the same socket.
public enum BrokerProgram {
    /// Exit status for mistakes in the arguments; as sysexits(3).
    static let usageStatus: Int32 = 64
    static let signals = [SIGCHLD, SIGTERM, SIGINT, SIGHUP]

    /// - Returns: the exit status.
    public static func run(_ arguments: [String]) -> Int32 {
        guard arguments.count >= 2, let limits = BrokerLimits(options: arguments.dropFirst(2)) else {
            return usageStatus
        }
        let isWorker = arguments[0] == "work"
        // A worker's descriptor 3 is the listening socket.
        HostProcess.closeInherited(from: isWorker ? 4 : 3)
        if !isWorker {
            OwnSurroundings.take()
            if !limits.staysInGroup { OwnCgroup.leaveLimits() }
        }
        HostProcess.harden()
        if !isWorker, let refusal = OwnSurroundings.refusal() {
            HostProcess.say(refusal)
            return 1
        }
        switch arguments[0] {
        case "start": return start(arguments)
        case "supervise":
            return Supervisor(
                BrokerFiles(directory: arguments[1]), Array(arguments.dropFirst(2)),
                staysInGroup: limits.staysInGroup
            ).run()
        case "work": return work(arguments[1], limits)
        default: return usageStatus
        }
    }

    private static func start(_ arguments: [String]) -> Int32 {
        do throws(LinuxError) {
            var errors = try ErrorPipe()
            let supervisor = try HostProcess.spawn(
                HostProcess.ownExecutable, ["supervise"] + arguments.dropFirst(),
                errorDescriptor: errors.childEnd, newSession: true)
            // Until it listens, or has said why not.
            let said = errors.readAll(milliseconds: 10_000)
            if !said.isEmpty {
                HostProcess.say(said)
                return 1
            }
            guard let ending = HostProcess.collect(supervisor, wait: false), ending != .exited(0) else {
                return 0
            }
            HostProcess.say("its supervisor ended: \(ending)")
            return 1
        } catch {
            HostProcess.say("\(error)")
            return 1
        }
    }

    private static func work(_ supervisor: String, _ limits: BrokerLimits) -> Int32 {
        guard let parent = Int32(supervisor), HostProcess.dieWithParent(parent) else { return 1 }
        let server = BrokerServer(
            listener: OwnedDescriptor(adopting: 3), limits: limits,
            descriptorLimit: HostProcess.raiseDescriptorLimit(), hasOwnCgroup: { OwnCgroup.isOurs })
        server.run()
        return 0
    }
}

/// Keeps one worker alive.
struct Supervisor {
    private let files: BrokerFiles
    private let options: [String]
    private let staysInGroup: Bool
    /// Milliseconds between a failure and the next start: doubled by each failure, forgotten after a minute of life.
    private static let pauses = 100...5000

    init(_ files: BrokerFiles, _ options: [String], staysInGroup: Bool) {
        self.files = files
        self.options = options
        self.staysInGroup = staysInGroup
    }

    func run() -> Int32 {
        do {
            try files.check()
            // Another supervisor holds the lock: it serves whoever started us.
            guard let lock = try files.claim() else { return 0 }
            HostProcess.block(BrokerProgram.signals)
            files.remove(files.socket)
            // Before the worker, which is born in it.
            let cgroup = makeGroup()
            let listener = try PacketSocket.listen(at: files.socket, backlog: 512)
            HostProcess.detachErrors()
            superviseWorkers(listener.descriptor.number)
            // In this order, all under the lock: whoever comes now finds no socket, or no lock, and starts another.
            files.remove(files.socket)
            cgroup?.remove()
            files.remove(files.group)
            files.remove(files.lock)
            _ = consume lock
            return 0
        } catch {
            files.note("mingle-broker: \(error)")
            HostProcess.say("\(error)")
            return 1
        }
    }

    private func makeGroup() -> OwnCgroup? {
        files.clearGroup()
        let group = OwnCgroup(stays: staysInGroup)
        if let group { files.noteGroup(group.path) }
        return group
    }

    private func superviseWorkers(_ listener: Int32) {
        var pause = Self.pauses.lowerBound
        while true {
            let started = monotonicNanoseconds()
            var ending: HostProcess.Ending? = .exited(1)
            do throws(LinuxError) {
                let worker = try HostProcess.spawn(
                    HostProcess.ownExecutable, ["work", String(HostProcess.number)] + options,
                    inherited: listener)
                ending = wait(for: worker)
            } catch { files.note("mingle-broker: \(error)") }
            guard let ending, ending != .exited(0) else { return }
            files.note("mingle-broker: the worker failed (\(ending)); starting another in \(pause) ms")
            if monotonicNanoseconds() - started > 60_000_000_000 { pause = Self.pauses.lowerBound }
            if isTold(toEndWithin: pause) { return }
            pause = min(pause * 2, Self.pauses.upperBound)
        }
    }

    /// - Returns: nil when this process was told to end; the worker has ended then, too.
    private func wait(for worker: Int32) -> HostProcess.Ending? {
        while true {
            if let ending = HostProcess.collect(worker, wait: false) { return ending }
            let signal = HostProcess.nextSignal(BrokerProgram.signals, milliseconds: 60_000)
            if let signal, signal != SIGCHLD {
                HostProcess.send(SIGKILL, to: worker)
                _ = HostProcess.collect(worker, wait: true)
                return nil
            }
        }
    }

    private func isTold(toEndWithin milliseconds: Int) -> Bool {
        let end = monotonicNanoseconds() + UInt64(milliseconds) * 1_000_000
        while true {
            let now = monotonicNanoseconds()
            guard now < end else { return false }
            let signal = HostProcess.nextSignal(
                BrokerProgram.signals, milliseconds: Int((end - now) / 1_000_000) + 1)
            if let signal, signal != SIGCHLD { return true }
        }
    }
}

extension BrokerLimits {
    /// Limits with changes: `name=number`, where the names are those of the properties.
    init?(options: some Sequence<String>) {
        self.init()
        for option in options {
            let parts = option.split(separator: "=", maxSplits: 1)
            guard parts.count == 2, let number = Int(parts[1]), number >= 0 else { return nil }
            switch parts[0] {
            case "clients": clients = number
            case "clientsOfProcess": clientsOfProcess = number
            case "pages": pages = UInt64(number)
            case "greeting": greeting = number
            case "unread": unread = number
            case "quiet": quiet = number
            case "notice": notice = number
            case "firstClient": firstClient = number
            case "linger": linger = number
            case "stays": staysInGroup = number > 0
            default: return nil
            }
        }
    }
}
