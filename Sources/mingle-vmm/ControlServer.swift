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
    private static let messageLimit = 4096
    /// Bytes of one answer that clients have room for, at most.
    private static let answerLimit = 60_000
    /// How long a vCPU may take to leave the guest to be looked at, in nanoseconds.
    private static let inspectionPatience: UInt64 = 5_000_000_000
    /// A client that does not take its answer is dropped after this time.
    private static let patience: UInt64 = 10_000_000_000

    private final class Client {
        let socket: PacketSocket
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
        _ timeline: Timeline, _ door: Door
    ) throws {
        self.door = door
        digest = try ContentDigest()
        memoryMap = try .open("/proc/self/smaps_rollup", flags: O_RDONLY)
        self.options = options
        self.machine = machine
        self.sharing = sharing
        self.watch = watch
        self.timeline = timeline
    }

    /// What to wait for; the order is that of `serve`.
    var wanted: [(descriptor: Int32, events: HostIO.Ready)] {
        [(door.socket.descriptor.number, .input)]
            + clients.map { ($0.socket.descriptor.number, $0.waiting.isEmpty ? .input : .output) }
    }

    /// Some client has paused the guest. (The engine's windows pause it as well, for moments.)
    var holdsGuest: Bool { clients.contains { $0.pauses > 0 } }

    /// When a client's patience is over, monotonic nanoseconds; nil: none waits.
    var nextLook: UInt64? {
        clients.filter { !$0.waiting.isEmpty }.map { $0.lastActive + Self.patience }.min()
    }

    /// Serves those of ``wanted`` that are ready.
    func serve(_ ready: some Collection<HostIO.Ready>) {
        let now = monotonicNanoseconds()
        for (client, found) in zip(clients, ready.dropFirst()) {
            let isLate = !client.waiting.isEmpty && now >= client.lastActive + Self.patience
            if found.isEmpty ? isLate : !serve(client) { drop(client) }
        }
        guard ready.first?.isEmpty == false else { return }
        for _ in 0..<Self.clientLimit {
            guard let new = try? door.socket.accept() else { return }
            let client = Client(new)
            if makeRoom() {
                clients.append(client)
            } else {
                _ = say("error: \(Self.clientLimit) other clients hold this guest paused", client)
            }
        }
    }

    /// One more packet of what waits, else one command.
    /// - Returns: false when it is to be dropped.
    private func serve(_ client: Client) -> Bool {
        client.lastActive = monotonicNanoseconds()
        return client.waiting.isEmpty ? answer(client) : flush(client)
    }

    /// A new client takes the place of one that has left, else of the one that has been idle longest. Who keeps the guest paused is
    /// not idle.
    private func makeRoom() -> Bool {
        if clients.count >= Self.clientLimit { dropThoseThatLeft() }
        while clients.count >= Self.clientLimit {
            let idle = clients.filter { $0.pauses == 0 }.min { $0.lastActive < $1.lastActive }
            guard let idle else { return false }
            // It may have asked something a moment ago.
            let found = HostIO.poll([(idle.socket.descriptor.number, .input)], timeout: 0)
            if found[0].isEmpty || !idle.waiting.isEmpty || !serve(idle) { drop(idle) }
        }
        return true
    }

    /// Some knock and go, to see who listens here: each such was taken in as a client a moment ago.
    private func dropThoseThatLeft() {
        let found = HostIO.poll(clients.map { ($0.socket.descriptor.number, .input) }, timeout: 0)
        for (client, found) in zip(clients, found) where !found.isEmpty && client.waiting.isEmpty {
            if !serve(client) { drop(client) }
        }
    }

    private func drop(_ client: Client) {
        for _ in 0..<client.pauses { machine.resume() }
        clients.removeAll { $0 === client }
    }

    private func answer(_ client: Client) -> Bool {
        var buffer = [UInt8](repeating: 0, count: Self.messageLimit)
        switch client.socket.receive(into: &buffer) {
        case .packet(let bytes, let passed):
            let descriptor = passed >= 0 ? OwnedDescriptor(adopting: passed) : nil
            let command = String(decoding: bytes, as: UTF8.self)
            // The only command that a descriptor comes with.
            if command == BrokerOffer.command { return say(takeBroker(descriptor), client) }
            return perform(command, client)
        case .nothing: return true
        case .closed, .odd: return false
        }
    }

    private func perform(_ command: String, _ client: Client) -> Bool {
        let words = command.split(separator: " ", maxSplits: 1).map(String.init)
        let argument = words.count > 1 ? words[1] : ""
        switch words.first ?? "" {
        case "stats": return say(statistics(), client)
        case "pause":
            machine.pause()
            client.pauses += 1
            return say("ok", client)
        case "resume":
            guard client.pauses > 0 else { return say("error: not paused by this client", client) }
            client.pauses -= 1
            machine.resume()
            return say("ok", client)
        case "type":
            machine.serial.receive(Array((argument + "\n").utf8))
            return say("ok", client)
        case "digest":
            let wanted = argument.split(separator: " ")
            guard Set(wanted).isSubset(of: ["pages", "checksum"]) else {
                return say("error: digest takes the words pages and checksum, or none", client)
            }
            return sendDigests(
                client, everyPage: wanted.contains("pages"), wanted.contains("checksum") ? .checksum : .blake2
            )
        case "explain": return explain(argument, client)
        case "debug": return say(describe(), client)
        case "memory": return say(memory(), client)
        case "sharing", "share-cpu": return say(changeSharing(words[0], argument), client)
        default:
            return say(
                "error: unknown command; use stats, pause, resume, type, digest, sharing, share-cpu, explain, broker, memory, debug",
                client)
        }
    }

    private func takeBroker(_ descriptor: consuming OwnedDescriptor?) -> String {
        guard let sharing else { return BrokerOffer.unwanted }
        return sharing.take(descriptor)
    }

    /// Of a page, or in several packets of all.
    private func explain(_ argument: String, _ client: Client) -> Bool {
        guard let sharing else { return say(BrokerOffer.unwanted, client) }
        do throws(SharingSession.NoExplanation) {
            if argument.isEmpty {
                client.waiting += try sharing.explain().packets.map { $0[...] }
                return flush(client)
            }
            guard let page = Int(argument) else {
                return say("error: explain takes the number of a page, or nothing", client)
            }
            return say(try sharing.explain(page: page), client)
        } catch { return say(error.rawValue, client) }
    }

    private func changeSharing(_ command: String, _ argument: String) -> String {
        guard let sharing else { return BrokerOffer.unwanted }
        switch (command, argument) {
        case ("sharing", "on"): sharing.setEnabled(true)
        case ("sharing", "off"): sharing.setEnabled(false)
        case ("share-cpu", _):
            guard let percent = Double(argument), percent > 0, percent <= 100 else {
                return "error: share-cpu takes a percentage above 0 and up to 100"
            }
            sharing.setShare(percent: percent)
        default: return "error: sharing on, or sharing off"
        }
        return "ok"
    }

    private func statistics() -> String {
        let state =
            machine.end != nil
            ? "ended"
            : watch?.isPaused == true || holdsGuest ? "paused" : timeline.isReady ? "running" : "booting"
        let reason = watch?.isPaused == true && machine.end == nil ? "\"memory\"" : "null"
        let pressure = watch.map { "\"\($0.level)\"" } ?? "null"
        let ready = timeline.readyAfter.map { "\(Double($0) / 1e9)" } ?? "null"
        return "{\"name\": \(JSONText.quoted(options.configuration.name)), \"state\": \"\(state)\","
            + " \"memory_bytes\": \(options.configuration.memorySizeInBytes), \"home_bytes\": \(machine.memory.allocatedBytes),"
            + " \"ram\": \"\(machine.memory.backing.rawValue)\","
            + " \"broker\": \(options.sharing.isOn ? options.sharing.brokerPath.map(JSONText.quoted) ?? "null" : "null"),"
            + " \"paused_for\": \(reason), \"pressure\": \(pressure),"
            + " \"boot_seconds\": \(ready), \"sharing\": \(sharing?.json() ?? "null")}"
    }

    /// What the kernel counts of this process's memory: others of its user may not look at a confined one.
    private func memory() -> String {
        do throws(LinuxError) {
            let text = String(decoding: try memoryMap.read(count: 8192, at: 0), as: UTF8.self)
            return text.isEmpty ? "error: /proc/self/smaps_rollup is empty" : text
        } catch { return "error: \(error)" }
    }

    /// What the guest and its VMM are at, for people: to be read when a guest does not answer.
    private func describe() -> String {
        // First the threads: what follows disturbs them.
        let threads = OwnThreads.describe()
        let text =
            "\(options.configuration.name), \(machine.end.map { "ended: \($0)" } ?? "alive")\n"
            + "\(machine.describeProcessors(patience: Self.inspectionPatience))\n\(threads)\n"
            + "  last words:\n\(String(decoding: machine.serial.recentOutput, as: UTF8.self))"
        guard text.utf8.count > Self.answerLimit else { return text }
        return String(decoding: Array(text.utf8.prefix(Self.answerLimit - 4)), as: UTF8.self) + "\n..."
    }

    /// One message with the number of pages, then messages of up to 2048 digests of 16 bytes.
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
            return say("error: \(error)", client)
        }
        client.waiting.append(Array("digest \(digests.count / ContentDigest.size)".utf8)[...])
        for start in stride(from: 0, to: digests.count, by: 2048 * ContentDigest.size) {
            client.waiting.append(digests[start..<min(start + 2048 * ContentDigest.size, digests.count)])
        }
        return flush(client)
    }

    private func say(_ text: String, _ client: Client) -> Bool {
        client.waiting.append(Array(text.utf8)[...])
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
