import FrameStore
import BrokerClient
import Glibc
import GuestMemory
import LinuxHost

/// What an honest client has to wait while others do all they can to keep the broker busy.
struct HostileBenchmark {
    let path: String
    let clients: Int
    let processes: Int
    var seconds = 10.0

    func run() throws {
        let first = try PageClient(path: path, domain: "honest", pages: 1 << 16)
        let second = try PageClient(path: path, domain: "honest", pages: 1 << 16)
        try measure("alone", first, second)
        var children: [Int32] = []
        defer {
            for child in children {
                HostProcess.send(SIGKILL, to: child)
                _ = HostProcess.collect(child, wait: true)
            }
        }
        for number in 0..<processes {
            let share = clients / processes + (number < clients % processes ? 1 : 0)
            children.append(
                try HostProcess.spawn(
                    HostProcess.ownExecutable, ["crowd", path, String(share)], name: "broker-test-client",
                    leads: .session))
        }
        // Until they are all there, or as many as are let in.
        var count = 0
        for _ in 0..<100 {
            usleep(100_000)
            count = try BrokerStore.statistics(path: path, deadlineMilliseconds: 60_000).clients.count - 2
            if count >= clients { break }
        }
        try measure("beside \(count) hostile clients of \(processes) processes", first, second)
    }

    private func measure(_ what: String, _ first: PageClient, _ second: PageClient) throws {
        var (small, large, joins): ([UInt64], [UInt64], [UInt64]) = ([], [], [])
        let end = monotonicNanoseconds() + UInt64(seconds * 1e9)
        var round = 0
        while monotonicNanoseconds() < end {
            let page = round % 60_000
            small.append(try time { try first.share(page..<page + 1) } / 2)
            small.append(try time { try second.share(page..<page + 1) } / 2)
            if round % 10 == 0 {
                var batch = StoreBatch()
                batch.sightings = first.sightings(60_000..<61_000)
                large.append(try time { _ = try first.store.exchange(batch) })
            }
            if round % 50 == 0 {
                joins.append(
                    try time {
                        try BrokerStore.connect(
                            path: path, domain: "honest", pageCount: 1024, deadlineMilliseconds: 60_000
                        ).goodbye()
                    })
            }
            round += 1
            usleep(2000)
        }
        print(
            "\(what): \(Self.text("round trip", small)); \(Self.text("of 1000 sightings", large)); "
                + Self.text("joining", joins))
    }

    private func time(_ body: () throws -> Void) rethrows -> UInt64 {
        let began = monotonicNanoseconds()
        try body()
        return monotonicNanoseconds() - began
    }

    private static func text(_ what: String, _ times: [UInt64]) -> String {
        let sorted = times.sorted()
        guard let last = sorted.last else { return "\(what): none" }
        func milliseconds(_ time: UInt64) -> String { "\(Double(time / 10_000) / 100)" }
        return "\(what) median \(milliseconds(sorted[sorted.count / 2])), "
            + "p99 \(milliseconds(sorted[sorted.count * 99 / 100])), max \(milliseconds(last)) ms (\(sorted.count))"
    }
}

/// `crowd SOCKET CLIENTS`: clients in domains of their own that keep the broker busy with the largest batches there are, each of
/// one kind; a thread for each. It never ends by itself.
enum Crowd {
    static func run(path: String, clients: Int) throws {
        var threads: [HostThread] = []
        for number in 0..<clients {
            threads.append(
                try HostThread(name: "crowd") {
                    while true {
                        // Who is refused, or lost, comes again.
                        try? keepBusy(path, number)
                        usleep(100_000)
                    }
                })
        }
        for thread in threads { thread.join() }
    }

    /// `mute SOCKET CLIENTS`: so many connections that say nothing, again whenever one is closed.
    static func mute(path: String, clients: Int) {
        var threads: [HostThread] = []
        for _ in 0..<clients {
            guard
                let thread = try? HostThread(
                    name: "mute",
                    {
                        var buffer = [UInt8](repeating: 0, count: 1024)
                        while true {
                            if let socket = try? PacketSocket.connect(to: path) {
                                var isOpen = true
                                while isOpen {
                                    guard socket.waitForInput(until: .max) else { continue }
                                    if case .closed = socket.receive(into: &buffer) { isOpen = false }
                                }
                            }
                            usleep(10_000)
                        }
                    })
            else { exit(1) }
            threads.append(thread)
        }
        for thread in threads { thread.join() }
    }

    private static func keepBusy(_ path: String, _ number: Int) throws {
        let pages = UInt32(4096)
        let store = try BrokerStore.connect(
            path: path, domain: nil, pageCount: Int(pages), deadlineMilliseconds: 600_000)
        for slot in 0..<store.stagingSlots {
            store.staging.write(PageClient.content(slot), slot: UInt32(slot))
        }
        var round = UInt64(number) << 40
        while true {
            var batch = StoreBatch()
            switch number % 4 {
            case 0:
                batch.uniform = (0..<pages).map { .init(page: 0, pattern: round + UInt64($0) + 1) }
            case 1:
                batch.uniform = (0..<pages).map { .init(page: $0, pattern: round + UInt64($0) / 256 + 1) }
            case 2:
                batch.sightings = (0..<pages).map {
                    .init(page: $0, hash: ContentHash(low: round + UInt64($0), high: 1))
                }
            default:
                batch.publications = (0..<UInt32(store.stagingSlots)).map {
                    .init(page: $0 + UInt32(truncatingIfNeeded: round >> 12) % 8 * 256, slot: $0)
                }
            }
            _ = try store.exchange(batch)
            round += 4096
        }
    }
}

/// `hoard SOCKET PAGES`: claims to have so many pages in each of two connections, and makes frames of contents that nobody else has until
/// it is refused all of a batch; says `made FRAMES` and waits.
enum Hoard {
    static func run(path: String, pages: Int) throws {
        let (first, second) = (
            try PageClient(path: path, domain: "hoard", pages: pages),
            try PageClient(path: path, domain: "hoard", pages: pages)
        )
        var made = 0
        for start in stride(from: 0, to: pages - 255, by: 256) {
            try first.share(start..<start + 256)
            let before = second.references
            try second.share(start..<start + 256)
            _ = try first.store.exchange(StoreBatch())
            let new = second.references - before
            made += new
            if new == 0 { break }
        }
        say("made \(made)")
        while readLine() != nil {}
    }
}
