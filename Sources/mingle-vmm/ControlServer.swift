import FrameStore
import Glibc
import BrokerClient
import GuestMemory
import LinuxHost
import VMMProtocol
import Hypervisor

/// Something that is no socket has the name of ours.
struct SocketInTheWay: Error, CustomStringConvertible {
    let path: String
    var description: String { "\(path) is in the way of the guest's control socket: remove it" }
}

/// Takes commands for a running guest at a Unix packet socket: one message, one command, one answer (docs/control.md).
/// The directory that the socket lies in keeps other users out. Runs on the main thread.
final class ControlServer {
    private static let clientLimit = 8
    /// How long a vCPU may take to leave the guest to be looked at, in nanoseconds.
    private static let inspectionPatience: UInt64 = 5_000_000_000
    /// A client that does not take its answer is dropped after this time.
    private static let patience: UInt64 = 10_000_000_000

    private final class Client {
        let socket: PacketSocket
        /// Set as soon as there is a handler.
        var source: EventLoop.Source?
        /// Pauses that it asked for and that end with it.
        var pauses = 0
        /// Packets that it has not taken yet; no command of it is read meanwhile.
        var waiting: [ArraySlice<UInt8>] = []
        /// When it last connected, asked or took something, monotonic nanoseconds.
        var lastActive = monotonicNanoseconds()
        init(_ socket: consuming PacketSocket) { self.socket = socket }
    }

    /// The socket itself, at which clients may wait before there is anybody to answer them.
    final class Door {
        fileprivate let socket: PacketSocket
        private let path: String

        /// - Returns: nil when no socket was asked for.
        init?(_ options: Options) throws {
            guard let path = options.controlPath else { return nil }
            HostIO.removeSocket(path)
            do throws(LinuxError) { socket = try PacketSocket.listen(at: path, backlog: 8) } catch {
                throw error.code == EADDRINUSE ? SocketInTheWay(path: path) as any Error : error
            }
            self.path = path
        }

        // The socket of a confined guest stays, and is removed with its record.
        deinit { HostIO.removeSocket(path) }
    }

    private let door: Door
    private let events: EventLoop
    private var clients: [Client] = []
    private let options: Options
    private let machine: VirtualMachine
    private let sharing: SharingSession?
    private let watch: MemoryWatch?
    private let timeline: Timeline
    private let digest: ContentDigest
    /// /proc/self/smaps_rollup
    private let memoryMap: OwnedDescriptor

    init(
        _ options: Options, _ machine: VirtualMachine, _ sharing: SharingSession?, _ watch: MemoryWatch?,
        _ timeline: Timeline, _ door: Door, _ events: EventLoop
    ) throws {
        self.door = door
        self.events = events
        digest = try ContentDigest()
        memoryMap = try .open("/proc/self/smaps_rollup", flags: O_RDONLY)
        self.options = options
        self.machine = machine
        self.sharing = sharing
        self.watch = watch
        self.timeline = timeline
        let source = events.add { [unowned self] _ in letIn() }
        events.watch(source, door.socket.descriptor.number, .input)
    }

    /// Some client has paused the guest. (The engine's windows pause it as well, for moments.)
    var holdsGuest: Bool { clients.contains { $0.pauses > 0 } }

    /// When a client's patience is over, monotonic nanoseconds; nil: none waits.
    var nextLook: UInt64? {
        clients.filter { !$0.waiting.isEmpty }.map { $0.lastActive + Self.patience }.min()
    }

    /// Drops the clients whose patience is over.
    func dropLate() {
        guard let nextLook, monotonicNanoseconds() >= nextLook else { return }
        let now = monotonicNanoseconds()
        for client in clients where !client.waiting.isEmpty && now >= client.lastActive + Self.patience {
            drop(client)
        }
    }

    private func letIn() {
        for _ in 0..<Self.clientLimit {
            guard let socket = try? door.socket.accept() else { return }
            let client = Client(socket)
            guard makeRoom() else {
                _ = say(.refused("\(Self.clientLimit) other clients hold this guest paused"), client)
                continue
            }
            // Both live as long as the source: the server as the loop does, a client until it is dropped.
            client.source = events.add { [unowned self, unowned client] _ in turn(of: client) }
            clients.append(client)
            wait(for: client)
        }
    }

    private func turn(of client: Client) {
        if serve(client) { wait(for: client) } else { drop(client) }
    }

    /// One more packet of what waits, else one command.
    /// - Returns: false when it is to be dropped.
    private func serve(_ client: Client) -> Bool {
        client.lastActive = monotonicNanoseconds()
        return client.waiting.isEmpty ? answer(client) : flush(client)
    }

    private func wait(for client: Client) {
        guard let source = client.source else { return }
        events.watch(source, client.socket.descriptor.number, client.waiting.isEmpty ? .input : .output)
    }

    /// A new client takes the place of one that has left, else of the one that has been idle longest. Who keeps the guest paused is
    /// not idle.
    private func makeRoom() -> Bool {
        if clients.count >= Self.clientLimit { dropThoseThatLeft() }
        // Clients that ask without end must not keep this thread.
        var chances = Self.clientLimit
        while clients.count >= Self.clientLimit {
            let idle = clients.filter { $0.pauses == 0 }.min { $0.lastActive < $1.lastActive }
            guard let idle else { return false }
            // It may have asked something a moment ago.
            let asks = PollList.isReady(idle.socket.descriptor.number, .input)
            if asks, idle.waiting.isEmpty, chances > 0 { turn(of: idle) } else { drop(idle) }
            chances -= 1
        }
        return true
    }

    /// Some knock and go, to see who listens here: each such was taken in as a client a moment ago.
    private func dropThoseThatLeft() {
        for client in clients
        where client.waiting.isEmpty && PollList.isReady(client.socket.descriptor.number, .input) {
            turn(of: client)
        }
    }

    private func drop(_ client: Client) {
        if let source = client.source { events.remove(source) }
        for _ in 0..<client.pauses { machine.resume() }
        clients.removeAll { $0 === client }
    }

    private func answer(_ client: Client) -> Bool {
        var buffer = [UInt8](repeating: 0, count: ControlCommand.packetLimit)
        switch client.socket.receive(into: &buffer) {
        case .packet(let bytes, let passed):
            let descriptor = passed >= 0 ? OwnedDescriptor(adopting: passed) : nil
            do throws(ControlCommand.Mistake) {
                return perform(
                    try ControlCommand(String(decoding: bytes, as: UTF8.self)), descriptor, client)
            } catch { return say(.refused(error.reason), client) }
        case .nothing: return true
        case .closed, .odd: return false
        }
    }

    /// - Parameter descriptor: what came along.
    private func perform(
        _ command: ControlCommand, _ descriptor: consuming OwnedDescriptor?, _ client: Client
    ) -> Bool {
        switch command {
        case .statistics: return say(.said(statistics.json.text(levels: 0)), client)
        case .pause:
            machine.pause()
            client.pauses += 1
            return say(.done, client)
        case .resume:
            guard client.pauses > 0 else { return say(.refused("not paused by this client"), client) }
            client.pauses -= 1
            machine.resume()
            return say(.done, client)
        case .type(let line):
            machine.serial.receive(Array((line + "\n").utf8))
            return say(.done, client)
        case .digest(let everyPage, let isChecksum):
            return sendDigests(client, everyPage: everyPage, isChecksum ? .checksum : .blake2)
        case .debug: return say(.said(describe()), client)
        case .memory: return say(memory(), client)
        case .sharing(let isOn): return say(changed { $0.setEnabled(isOn) }, client)
        case .shareCPU(let percent): return say(changed { $0.setShare(percent: percent) }, client)
        case .explain(let page): return explain(page, client)
        case .broker:
            guard let sharing else { return say(.sharesNothing, client) }
            return say(sharing.take(descriptor), client)
        }
    }

    private func changed(_ change: (SharingSession) -> Void) -> ControlAnswer {
        guard let sharing else { return .sharesNothing }
        change(sharing)
        return .done
    }

    /// Of a page, or in several packets of all.
    private func explain(_ page: Int?, _ client: Client) -> Bool {
        guard let sharing else { return say(.sharesNothing, client) }
        do throws(SharingSession.NoExplanation) {
            if let page { return say(try sharing.explain(page: page), client) }
            client.waiting += try sharing.explain().packets.map { $0[...] }
            return flush(client)
        } catch { return say(.refused(error.rawValue), client) }
    }

    private var state: GuestStatistics.State {
        if machine.end != nil { return .ended }
        if watch?.isPaused == true || holdsGuest { return .paused }
        return timeline.isReady ? .running : .booting
    }

    private var statistics: GuestStatistics {
        var answer = GuestStatistics()
        answer.name = options.configuration.name
        answer.state = state
        answer.memoryBytes = options.configuration.memorySizeInBytes
        answer.homeBytes = machine.memory.allocatedBytes
        answer.bootSeconds = timeline.readyAfter.map { Double($0) / 1e9 }
        answer.pausedFor =
            watch?.isPaused == true && machine.end == nil
            ? GuestStatistics.memoryIsShort : nil
        answer.pressure = watch?.level
        answer.broker = options.sharing.isOn ? options.sharing.brokerPath : nil
        answer.ram = machine.memory.backing
        answer.sharing = sharing?.figures
        return answer
    }

    /// What the kernel counts of this process's memory: others of its user may not look at a confined one.
    private func memory() -> ControlAnswer {
        do throws(LinuxError) {
            let text = String(decoding: try memoryMap.read(count: 8192, at: 0), as: UTF8.self)
            return text.isEmpty ? .refused("/proc/self/smaps_rollup is empty") : .said(text)
        } catch { return .refused("\(error)") }
    }

    /// What the guest and its VMM are at, for people: to be read when a guest does not answer.
    private func describe() -> String {
        // First the threads: what follows disturbs them.
        let threads = OwnThreads.describe()
        let text =
            "\(options.configuration.name), \(machine.end.map { "ended: \($0)" } ?? "alive")\n"
            + "\(machine.describeProcessors(patience: Self.inspectionPatience))\n\(threads)\n"
            + "  last words:\n\(String(decoding: machine.serial.recentOutput, as: UTF8.self))"
        guard text.utf8.count > ControlAnswer.packetLimit else { return text }
        return String(decoding: Array(text.utf8.prefix(ControlAnswer.packetLimit - 4)), as: UTF8.self)
            + "\n..."
    }

    /// - Parameter everyPage: one for each page of the guest, instead of those that are allocated only.
    private func sendDigests(_ client: Client, everyPage: Bool, _ kind: ContentDigest.Kind) -> Bool {
        let digests: [UInt8]
        do throws(LinuxError) {
            func compute() throws(LinuxError) -> [UInt8] {
                try digest.pages(of: machine.memory, everyPage: everyPage, kind: kind)
            }
            // The engine would not know that somebody reads, and a pause is nothing to this thread.
            if let sharing {
                digests = try sharing.withMappingsHeld(compute)
            } else {
                digests = try compute()
            }
        } catch {
            return say(.refused("\(error)"), client)
        }
        client.waiting += PageDigests.packets(digests)
        return flush(client)
    }

    private func say(_ answer: ControlAnswer, _ client: Client) -> Bool {
        client.waiting.append(Array(answer.text.utf8)[...])
        return flush(client)
    }

    /// Sends what it takes now.
    /// - Returns: false when it is gone.
    private func flush(_ client: Client) -> Bool {
        var sent = 0
        defer { client.waiting.removeFirst(sent) }
        for packet in client.waiting {
            switch client.socket.send(Array(packet)) {
            case .done: sent += 1
            case .broken: return false
            case .full: return true
            }
        }
        return true
    }
}
