internal import FrameStore
internal import CLinux
internal import LinuxHost

/// The program `mingle-broker`, in four roles:
///
///   start      -> starts `supervise` in a session of its own and ends, so that no guest is its parent
///   supervise  -> holds the lock and the listening socket, starts `work`, and starts it again when it fails
///   work       -> the broker itself; when its supervisor fails, it starts `adopt`
///   adopt      -> a supervisor that takes over lock, listening socket and worker from that worker
///
/// A worker that failed took all it knew with it: its successor begins anew, and guests find it at the same socket. A
/// supervisor that failed knew nothing.
public enum BrokerProgram {
    /// Exit status for mistakes in the arguments; as sysexits(3).
    static let usageStatus: Int32 = 64
    static let signals = [SIGCHLD, SIGTERM, SIGINT, SIGHUP]

    /// - Returns: the exit status.
    public static func run(_ arguments: [String]) -> Int32 {
        guard arguments.count >= 2, let limits = BrokerLimits(options: arguments.dropFirst(2)) else {
            return usageStatus
        }
        // What a worker, or a supervisor that takes one over, is handed down.
        let handed: Int32 = ["work": 3, "adopt": 4][arguments[0]] ?? 0
        HostProcess.closeInherited(from: 3 + handed)
        let isFresh = handed == 0
        if isFresh {
            OwnSurroundings.take()
            if !limits.staysInGroup { OwnCgroup.leaveLimits() }
        }
        HostProcess.harden()
        if isFresh, let refusal = OwnSurroundings.refusal() {
            HostProcess.say(refusal)
            return 1
        }
        let files = BrokerFiles(directory: arguments[1])
        let options = Array(arguments.dropFirst(2))
        let supervisor = Supervisor(files, options, staysInGroup: limits.staysInGroup)
        switch arguments[0] {
        case "start": return start(arguments)
        case "supervise": return supervisor.run()
        case "adopt": return supervisor.adopt()
        case "work": return work(files, options, limits)
        default: return usageStatus
        }
    }

    private static func start(_ arguments: [String]) -> Int32 {
        do throws(LinuxError) {
            var errors = try ErrorPipe()
            let supervisor = try HostProcess.spawn(
                HostProcess.ownExecutable, ["supervise"] + arguments.dropFirst(),
                errors: .descriptor(errors.childEnd), leads: .group)
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

    private static func work(_ files: BrokerFiles, _ options: [String], _ limits: BrokerLimits) -> Int32 {
        HostProcess.forgetChildren()
        let listener = HostProcess.inherited(3)
        let guardian = Guardian(
            files, options, listener: listener.number, lock: HostProcess.inherited(4),
            channel: PacketSocket(descriptor: HostProcess.inherited(5)))
        let server = BrokerServer(
            listener: listener, limits: limits, descriptorLimit: HostProcess.raiseDescriptorLimit(),
            guardian: guardian, offers: OfferBook(files, limits.ability), hasOwnCgroup: { OwnCgroup.isOurs })
        server.run()
        guardian.end()
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
    /// Connections that may wait to be accepted.
    private static let backlog: Int32 = 512
    /// Milliseconds in which a process that has closed everything, or was killed, is gone.
    private static let dying: Int32 = 10_000

    /// The broker itself.
    private struct Worker: ~Copyable {
        let channel: PacketSocket
        let process: ProcessHandle
        /// Its number, if it is our child.
        let child: Int32?
    }

    /// How a worker ended.
    private enum Ending: Equatable {
        /// Nobody needs it.
        case over
        /// This process was told to end, and ended it.
        case told
        case failed(String)
    }

    init(_ files: BrokerFiles, _ options: [String], staysInGroup: Bool) {
        self.files = files
        self.options = options
        self.staysInGroup = staysInGroup
    }

    func run() -> Int32 {
        do {
            try files.check()
            // Another supervisor holds the lock, or its worker: it serves whoever started us.
            guard let lock = try files.claim() else { return 0 }
            HostProcess.block(BrokerProgram.signals)
            files.remove(files.socket)
            // Before the worker, which is born in it.
            let cgroup = makeGroup()
            let listener = try PacketSocket.listen(at: files.socket, backlog: Self.backlog)
            try listener.tellSenders(true)
            HostProcess.detachErrors()
            superviseWorkers(listener, lock, cgroup, nil)
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

    /// Takes over what a worker that lost its supervisor hands down. The lock stays held all the time, so that no other
    /// supervisor begins.
    func adopt() -> Int32 {
        HostProcess.block(BrokerProgram.signals)
        let listener = PacketSocket(descriptor: HostProcess.inherited(3))
        let lock = HostProcess.inherited(4)
        let worker = Worker(
            channel: PacketSocket(descriptor: HostProcess.inherited(5)),
            process: ProcessHandle(descriptor: HostProcess.inherited(6)), child: nil)
        do throws(LinuxError) {
            // Whoever connects finds this process at the other end from now on.
            try listener.listenAgain(backlog: Self.backlog)
        } catch {
            files.note("mingle-broker: \(error)")
            return 1
        }
        superviseWorkers(listener, lock, OwnCgroup.adopted(), worker)
        return 0
    }

    private func superviseWorkers(
        _ listener: consuming PacketSocket, _ lock: consuming OwnedDescriptor, _ cgroup: OwnCgroup?,
        _ first: consuming Worker?
    ) {
        var pause = Self.pauses.lowerBound
        var worker = consume first
        var isFirst = worker == nil
        // Made before there is a worker that nobody would wait for without it.
        let signals: OwnedDescriptor
        do throws(LinuxError) { signals = try HostProcess.signalDescriptor(BrokerProgram.signals) } catch {
            files.note("mingle-broker: \(error)")
            // A worker that lives starts another supervisor; without one, whoever comes next finds nothing in the way.
            if isFirst {
                files.remove(files.socket)
                cgroup?.remove()
                files.remove(files.group)
                files.remove(files.lock)
            }
            return
        }
        while true {
            let started = monotonicNanoseconds()
            var ending = Ending.failed("not started")
            do throws(LinuxError) {
                let current: Worker
                if let adopted = worker.take() {
                    current = adopted
                } else {
                    // Its predecessor's clients are offered connections by it (OfferBook).
                    current = try start(listener.descriptor.number, lock.number)
                }
                isFirst = false
                ending = wait(for: current, signals)
            } catch { ending = .failed("\(error)") }
            guard case .failed(let how) = ending else { break }
            files.note("mingle-broker: the worker failed (\(how)); starting another in \(pause) ms")
            if monotonicNanoseconds() - started > 60_000_000_000 { pause = Self.pauses.lowerBound }
            if isTold(toEndWithin: pause) { break }
            pause = min(pause * 2, Self.pauses.upperBound)
        }
        // In this order, all under the lock: whoever comes now finds no socket, or no lock, and starts another.
        files.remove(files.socket)
        cgroup?.remove()
        files.remove(files.group)
        files.remove(files.lock)
        _ = consume lock
        _ = consume listener
    }

    private func start(_ listener: Int32, _ lock: Int32) throws(LinuxError) -> Worker {
        let pair = try PacketSocket.pair()
        let child = try HostProcess.spawn(
            HostProcess.ownExecutable, ["work", files.directory] + options,
            inherited: [listener, lock, pair.second.descriptor.number])
        // The number is its own until it is collected.
        let process: ProcessHandle
        do throws(Peer.Unknown) { process = try ProcessHandle(child: child) } catch {
            HostProcess.send(SIGKILL, to: child)
            _ = HostProcess.collect(child, wait: true)
            throw LinuxError(operation: "pidfd_open", code: ESRCH, subject: "\(error)")
        }
        return Worker(channel: pair.onlyFirst(), process: process, child: child)
    }

    /// Waits until the worker has ended, or this process is told to end, and then the worker is ended, too.
    private func wait(for worker: borrowing Worker, _ signals: borrowing OwnedDescriptor) -> Ending {
        var buffer = [UInt8](repeating: 0, count: 16)
        var isOver = false
        while true {
            var watch = PollList()
            _ = watch.add(signals.number, Int16(POLLIN))
            _ = watch.add(worker.channel.descriptor.number, Int16(POLLIN))
            watch.wait(milliseconds: -1)
            while let signal = HostProcess.nextSignal(BrokerProgram.signals, milliseconds: 0) {
                if signal == SIGCHLD { continue }
                try? worker.process.send(SIGKILL)
                _ = collect(worker)
                return .told
            }
            switch worker.channel.receive(into: &buffer) {
            case .packet(let bytes, let passed):
                if passed >= 0 { _ = OwnedDescriptor(adopting: passed) }
                guard bytes == Guardian.over else { continue }
                isOver = true
                _ = worker.channel.send(Guardian.heard)
            case .nothing: break
            case .closed, .odd:
                let ending = collect(worker)
                if isOver || ending == .exited(0) { return .over }
                return .failed(ending.map { "\($0)" } ?? "lost")
            }
        }
    }

    /// Waits for the end of a worker that is ending: then nothing of its memory, nor of its descriptors, is left.
    private func collect(_ worker: borrowing Worker) -> HostProcess.Ending? {
        if !worker.process.waitForEnd(milliseconds: Self.dying) { try? worker.process.send(SIGKILL) }
        return worker.child.flatMap { HostProcess.collect($0, wait: true) }
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
            case "strangers": strangers = number
            case "pagesOfProcess": pagesOfProcess = number
            case "greeting": greeting = number
            case "unread": unread = number
            case "quiet": quiet = number
            case "notice": notice = number
            case "passesDescriptors": ability.passesDescriptors = number != 0
            case "hasInodes": ability.hasInodes = number != 0
            case "firstClient": firstClient = number
            case "linger": linger = number
            case "stays": staysInGroup = number > 0
            default: return nil
            }
        }
    }
}
