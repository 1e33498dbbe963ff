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
        HostProcess.harden()
        switch arguments[0] {
        case "start": return start(arguments)
        case "supervise":
            return Supervisor(BrokerFiles(directory: arguments[1]), Array(arguments.dropFirst(2))).run()
        case "work": return work(arguments[1], limits)
        default: return usageStatus
        }
    }

    private static func start(_ arguments: [String]) -> Int32 {
        do throws(LinuxError) {
            _ = try HostProcess.spawn(
                HostProcess.ownExecutable, ["supervise"] + arguments.dropFirst(), newSession: true)
            return 0
        } catch { return 1 }
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
    /// Milliseconds between a failure and the next start: doubled by each failure, forgotten after a minute of life.
    private static let pauses = 100...5000

    init(_ files: BrokerFiles, _ options: [String]) {
        self.files = files
        self.options = options
    }

    func run() -> Int32 {
        do {
            try files.check()
            // Another supervisor holds the lock: it serves whoever started us.
            guard let lock = try files.claim() else { return 0 }
            HostProcess.block(BrokerProgram.signals)
            files.remove(files.socket)
            let listener = try PacketSocket.listen(at: files.socket, backlog: 512)
            try listener.tellSenders(true)
            let cgroup = OwnCgroup()
            superviseWorkers(listener.descriptor.number, cgroup)
            // In this order, all under the lock: whoever comes now finds no socket, or no lock, and starts another.
            files.remove(files.socket)
            files.remove(files.lock)
            cgroup?.remove()
            _ = consume lock
            return 0
        } catch {
            files.note("mingle-broker: \(error)")
            return 1
        }
    }

    private func superviseWorkers(_ listener: Int32, _ cgroup: OwnCgroup?) {
        var pause = Self.pauses.lowerBound
        while true {
            let started = monotonicNanoseconds()
            var ending: HostProcess.Ending? = .exited(1)
            do throws(LinuxError) {
                let worker = try HostProcess.spawn(
                    HostProcess.ownExecutable, ["work", String(HostProcess.number)] + options,
                    inherited: listener)
                cgroup?.add(worker)
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
            case "passesDescriptors": ability.passesDescriptors = number != 0
            case "hasInodes": ability.hasInodes = number != 0
            case "firstClient": firstClient = number
            case "linger": linger = number
            default: return nil
            }
        }
    }
}
