import FrameStore
import BrokerClient
import Glibc
import GuestMemory
import LinuxHost

/// `client SOCKET DOMAIN PAGES`: joins, sights PAGES pages that hold their own numbers, publishes what it is asked to,
/// says `ready REFERENCES`, then obeys the lines of standard input: `close`, `hold` (speak, and say the references), `map`
/// (maps its frames, without reading them), `read` (how many of them hold what they should), `move` (joins anew, and says
/// that it moved over).
/// `hand SOCKET TO`: connects to the broker, hands the connection to who listens at TO, and ends.
/// `guest SOCKET CONTROL DOMAIN BUSY`: as a guest that connects to nothing: listens at CONTROL, says `ready`, joins over what it is
/// offered there, and says `joined OFFERS`, how many that took; it declines the first BUSY of them, for the moment. Of who connects
/// and says nothing it says `looked`.
/// `bench SOCKET`, `bench-hostile SOCKET CLIENTS PROCESSES`: measure; see docs/broker.md. `crowd`, `mute`, `hoard`: hostile, see there.
@main
struct BrokerTestClient {
    static func main() {
        do { try run() } catch {
            let line = Array("failed: \(error)\n".utf8)
            _ = write(2, line, line.count)
            exit(1)
        }
    }

    private static func run() throws {
        let arguments = CommandLine.arguments
        if arguments.count == 3, arguments[1] == "bench" { return try Benchmark(path: arguments[2]).run() }
        if arguments.count == 5, arguments[1] == "bench-hostile", let clients = Int(arguments[3]),
            let processes = Int(arguments[4]), processes > 0
        {
            return try HostileBenchmark(path: arguments[2], clients: clients, processes: processes).run()
        }
        if arguments.count == 4, arguments[1] == "hand" {
            let connection = try PacketSocket.connect(to: arguments[2])
            let meeting = try PacketSocket.connect(to: arguments[3])
            guard case .done = meeting.send([1], passing: connection.descriptor.number) else { exit(1) }
            return
        }
        if arguments.count == 6, arguments[1] == "guest", let busy = Int(arguments[5]) {
            return try OfferedGuest(control: arguments[3], domain: arguments[4], busy: busy).run()
        }
        if arguments.count == 4, let number = Int(arguments[3]) {
            switch arguments[1] {
            case "crowd": return try Crowd.run(path: arguments[2], clients: number)
            case "mute": return Crowd.mute(path: arguments[2], clients: number)
            case "hoard": return try Hoard.run(path: arguments[2], pages: number)
            default: exit(64)
            }
        }
        guard arguments.count == 5, arguments[1] == "client", let pages = Int(arguments[4]) else { exit(64) }
        let client = try PageClient(path: arguments[2], domain: arguments[3], pages: pages)
        try client.share(0..<pages)
        say("ready \(client.references)")
        while let line = readLine() {
            if line == "close" { client.store.disconnect() }
            if line == "hold" { try client.listen() }
            if line == "map" { client.map() }
            if line == "move" { try client.move() }
            say("\(line) \(line == "read" ? client.soundFrames() : client.references)")
        }
    }
}

/// Prints a line at once, also into a pipe.
func say(_ line: String) {
    print(line)
    fflush(nil)
}

/// A guest whose pages hold their own numbers.
final class PageClient {
    private(set) var store: BrokerStore
    private let hasher: PageHasher
    private let path: String
    private let history = SessionHistory()
    private let pages: Int
    private var leased: [UInt32: FrameLocation] = [:]
    private var mapped: [UInt32: UnsafeRawPointer] = [:]
    var references: Int { leased.count }

    init(path: String, domain: String, pages: Int) throws {
        (self.path, self.pages) = (path, pages)
        store = try BrokerStore.connect(
            path: path, domain: domain, pageCount: pages, deadlineMilliseconds: 60_000, history: history)
        hasher = PageHasher(secret: store.secret)!
    }

    static func content(_ page: Int) -> [UInt8] {
        var bytes = [UInt8](repeating: 0x5A, count: 4096)
        for index in 0..<8 { bytes[index] = UInt8(truncatingIfNeeded: page >> (8 * index)) }
        return bytes
    }

    func sightings(_ pages: Range<Int>) -> [StoreBatch.Sighting] {
        pages.map { StoreBatch.Sighting(page: UInt32($0), hash: hasher(Self.content($0))) }
    }

    /// Hears all news.
    func listen() throws {
        while true {
            let reply = try store.exchange(StoreBatch())
            take(reply)
            if !reply.hasMore { return }
        }
    }

    /// Maps every frame, without touching it.
    func map() {
        for (page, frame) in leased {
            let address = mmap(
                nil, 4096, PROT_READ, MAP_PRIVATE, store.storeDescriptor.number, Int(frame.fileOffset))
            mapped[page] = UnsafeRawPointer(address)
        }
    }

    /// Of the mapped frames, those that hold what they should.
    func soundFrames() -> Int {
        mapped.count { page, address in
            Self.content(Int(page)).withUnsafeBytes { memcmp($0.baseAddress!, address, 4096) == 0 }
        }
    }

    /// As a guest whose connection was lost and that maps nothing any more.
    func move() throws {
        let domain = store.domain
        store.disconnect()
        leased = [:]
        store = try BrokerStore.connect(
            path: path, domain: domain, pageCount: pages, deadlineMilliseconds: 60_000, history: history)
        var batch = StoreBatch()
        batch.hasMovedOver = true
        _ = try store.exchange(batch)
    }

    func take(_ reply: StoreReply) {
        for promotion in reply.promotions { leased[promotion.page] = promotion.location }
    }

    func share(_ pages: Range<Int>) throws {
        for start in stride(from: pages.lowerBound, to: pages.upperBound, by: 256) {
            let range = start..<min(start + 256, pages.upperBound)
            var batch = StoreBatch()
            batch.sightings = sightings(range)
            let reply = try store.exchange(batch)
            take(reply)
            var publish = StoreBatch()
            for (page, answer) in zip(range, reply.sightings) {
                if case .frame(let location) = answer { leased[UInt32(page)] = location }
                guard answer == .publish else { continue }
                let slot = UInt32(publish.publications.count)
                store.staging.write(Self.content(page), slot: slot)
                publish.publications.append(StoreBatch.Publication(page: UInt32(page), slot: slot))
            }
            let published = try store.exchange(publish)
            take(published)
            for (publication, answer) in zip(publish.publications, published.publications) {
                if case .frame(let location) = answer { leased[publication.page] = location }
            }
        }
    }
}
