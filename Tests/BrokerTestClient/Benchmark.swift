import FrameStore
import BrokerClient
import Glibc
import GuestMemory
import LinuxHost

/// What a broker costs: run it against a broker of its own that nobody else uses.
struct Benchmark {
    let path: String

    func run() throws {
        let tracked = 1 << 20
        let first = try PageClient(path: path, domain: "bench", pages: tracked)
        let before = workerBytes()
        try measureSightings(first, tracked)
        let after = workerBytes()
        if let before, let after {
            print(
                "broker memory per tracked page: \(Double(after - before) / Double(tracked)) bytes (\(tracked) pages)"
            )
        }
        try measurePublications()
    }

    private func measureSightings(_ client: PageClient, _ tracked: Int) throws {
        var times: [UInt64] = []
        for start in stride(from: 0, to: tracked, by: 1000) {
            var batch = StoreBatch()
            batch.sightings = client.sightings(start..<min(start + 1000, tracked))
            let began = monotonicNanoseconds()
            _ = try client.store.exchange(batch)
            times.append(monotonicNanoseconds() - began)
        }
        times.sort()
        print(
            "exchange of 1000 sightings: median \(times[times.count / 2] / 1000) us, "
                + "p99 \(times[times.count * 99 / 100] / 1000) us (\(times.count) exchanges)")
    }

    private func measurePublications() throws {
        let pages = 32768
        let donor = try PageClient(path: path, domain: "publish", pages: pages)
        try donor.share(0..<pages)
        let client = try PageClient(path: path, domain: "publish", pages: pages)
        var spent: UInt64 = 0
        for start in stride(from: 0, to: pages, by: 256) {
            var batch = StoreBatch()
            for page in start..<start + 256 {
                client.store.staging.write(PageClient.content(page), slot: UInt32(page - start))
                batch.publications.append(
                    StoreBatch.Publication(page: UInt32(page), slot: UInt32(page - start)))
            }
            let began = monotonicNanoseconds()
            let reply = try client.store.exchange(batch)
            spent += monotonicNanoseconds() - began
            precondition(reply.publications.allSatisfy { if case .frame = $0 { true } else { false } })
            _ = try donor.store.exchange(StoreBatch())
        }
        let megabytes = Double(pages) * 4096 / 1e6
        print("publish: \(Int(megabytes / (Double(spent) / 1e9))) MB/s (\(Int(megabytes)) MB)")
    }

    /// Anonymous memory of the process that serves.
    private func workerBytes() -> Int? {
        guard let figures = try? BrokerStore.statistics(path: path), figures.clients.count > 0,
            let status = SystemCall.text(of: "/proc/\(figures.worker)/status")
        else { return nil }
        return SmallFile.table(status)["RssAnon"].map { Int($0) * 1024 }
    }
}
