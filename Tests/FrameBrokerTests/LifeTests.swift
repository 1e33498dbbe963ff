@testable import FrameStore
@testable import BrokerClient
import CLinux
import Foundation
import GuestMemory
@testable import LinuxHost
import Testing
import TestSupport

@testable import FrameBroker
@testable import Sharing

/// Start, end, and what happens when somebody dies.
@Suite(.serialized) struct LifeTests {
    @Test func twoStartersGetOneBrokerAndNothingIsLeft() throws {
        let stand = try BrokerStand()
        let stores = Monitor<[BrokerStore]>([])
        nonisolated(unsafe) let shared = stand
        onThreads(6) { _ in
            guard let store = try? shared.join("race") else { return }
            nonisolated(unsafe) let sent = store
            stores.withLock { $0.append(sent) }
        }
        let joined = stores.withLock { $0 }
        #expect(joined.count == 6)
        #expect(Set(joined.map(\.epoch)).count == 1)
        let supervisor = try stand.supervisor()
        let worker = try stand.worker()
        // A group of its own in the session of whoever started it: see docs/broker.md.
        #expect(getpgid(supervisor) == supervisor && getpgid(worker) == supervisor)
        #expect(getsid(supervisor) == getsid(0))
        joined.forEach { $0.goodbye() }
        eventually("the broker ends") { !isAlive(supervisor) && !isAlive(worker) }
        #expect(try FileManager.default.contentsOfDirectory(atPath: stand.directory.path) == [])
        // And another one can start.
        #expect(try stand.join("race").epoch != joined[0].epoch)
    }

    @Test func aKilledClientsFramesGo() throws {
        let stand = try BrokerStand()
        let keeper = try stand.join("kill", pages: 8)
        let first = try ClientProcess(stand, "kill", pages: 600)
        #expect(first.line() == "ready 0")
        let second = try ClientProcess(stand, "kill", pages: 600)
        #expect(second.line() == "ready 600")
        #expect(first.tell("hold") == "hold 600")
        #expect(try stand.figures().total.frames == 600)
        // Its socket closes, its process lives: references stay.
        #expect(second.tell("close") == "close 600")
        try eventually("it is silent") { try stand.figures().clients.contains { $0.isSilent } }
        var figures = try stand.figures()
        #expect(figures.total.references == 1200 && figures.domains[0].orphanBytes == 600 * 4096)
        second.killNow()
        try eventually("its references are gone") { try stand.figures().total.references == 600 }
        first.killNow()
        try eventually("all is freed") {
            _ = try keeper.exchange(StoreBatch())
            figures = try stand.figures()
            return figures.total.frames == 0 && figures.total.retired == 0 && figures.clients.count == 1
                && figures.domains[0].allocatedBytes == 0
        }
    }

    @Test func whoMovedOverHoldsNothingTwice() throws {
        let stand = try BrokerStand()
        let keeper = try stand.join("move", pages: 8)
        let history = SessionHistory()
        let earlier = try stand.join("move", pages: 8, history: history)
        let hasher = try #require(PageHasher(secret: earlier.secret))
        _ = try earlier.sight([(0, page(1)), (1, page(2))], hasher)
        _ = try keeper.publish([(0, page(1)), (1, page(2))])
        #expect(try stand.figures().total.references == 4)
        earlier.disconnect()
        try eventually("it is silent") { try stand.figures().clients.contains { $0.isSilent } }
        // Other guests of the same process, in this domain or another, say nothing about this one's connections.
        var batch = StoreBatch()
        batch.hasMovedOver = true
        var others: [BrokerStore] = []
        for domain in ["move", "elsewhere"] {
            others.append(try stand.join(domain, pages: 8))
            _ = try others.last?.exchange(batch)
        }
        #expect(try stand.figures().total.references == 4)
        // Nor do those of a guest that did lose a connection.
        let second = SessionHistory()
        try stand.join("move", pages: 8, history: second).disconnect()
        others.append(try stand.join("move", pages: 8, history: second))
        _ = try others.last?.exchange(batch)
        #expect(try stand.figures().total.references == 4)
        let later = try stand.join("move", pages: 8, history: history)
        _ = try later.exchange(batch)
        try eventually("the earlier references are gone") { try stand.figures().total.references == 2 }
        // Those of connections that are open stay.
        #expect(try stand.figures().clients.filter { !$0.isSilent }.count == 5)
    }

    @Test func aKilledWorkerIsReplaced() throws {
        let stand = try BrokerStand()
        let client = try stand.join("worker")
        let worker = try stand.worker()
        kill(worker, SIGKILL)
        #expect(throws: FrameStoreError.self) {
            _ = try TestSupport.eventually {
                _ = try client.exchange(StoreBatch())
                return false
            }
        }
        let again = try stand.join("worker")
        #expect(again.epoch != client.epoch && again.secret != client.secret)
        #expect(try stand.worker() != worker)
        // Both die; the next start builds anew.
        let (supervisor, second) = (try stand.supervisor(), try stand.worker())
        kill(supervisor, SIGSTOP)
        kill(second, SIGKILL)
        kill(supervisor, SIGKILL)
        #expect(try stand.join("worker").epoch != again.epoch)
    }

    /// Waits until a supervisor that is not `old` listens.
    private func nextSupervisor(_ stand: BrokerStand, after old: Int32) throws -> Int32 {
        var found: Int32 = 0
        try eventually("another supervisor listens") {
            found = try stand.figures().supervisor
            return found > 0 && found != old && isAlive(found)
        }
        return found
    }

    @Test func aKilledSupervisorIsReplaced() throws {
        let stand = try BrokerStand()
        let first = try stand.join("guarded", pages: 8)
        let second = try stand.join("guarded", pages: 8)
        let hasher = try #require(PageHasher(secret: first.secret))
        let worker = try stand.worker()
        var supervisor = try stand.supervisor()
        for round in 0..<3 {
            kill(supervisor, SIGKILL)
            // Meanwhile starters find the lock held, and the socket answering.
            for _ in 0..<3 {
                _ = try HostProcess.spawn(
                    program("mingle-broker"), ["start", stand.directory.path] + stand.options)
            }
            let next = try nextSupervisor(stand, after: supervisor)
            // Nothing was lost: clients go on, and the store is the same.
            let bytes = page(round, 5)
            #expect(try first.sight([(1, bytes)], hasher).sightings == [.recorded])
            guard case .frame? = try second.publish([(1, bytes)]).publications.first else {
                Issue.record("the clients cannot share")
                return
            }
            _ = try first.forget([1])
            _ = try second.forget([1])
            #expect(try stand.worker() == worker && getpgid(next) == next)
            #expect(try stand.join("guarded").epoch == first.epoch)
            supervisor = next
        }
        // The one that was adopted replaces the worker as any, and ends with it.
        kill(worker, SIGKILL)
        let again = try stand.join("guarded")
        #expect(again.epoch != first.epoch)
        #expect(try stand.supervisor() == supervisor)
        let last = try stand.worker()
        #expect(last != worker)
        again.goodbye()
        eventually("the broker ends") { !isAlive(supervisor) && !isAlive(last) }
        #expect(try FileManager.default.contentsOfDirectory(atPath: stand.directory.path) == ["broker.log"])
    }

    @Test func anAdoptedWorkerEndsWhenItsSupervisorIsTold() throws {
        let stand = try BrokerStand()
        let client = try stand.join("told")
        let (old, worker) = (try stand.supervisor(), try stand.worker())
        kill(old, SIGKILL)
        let next = try nextSupervisor(stand, after: old)
        try BrokerStore.endBroker(path: stand.path)
        eventually("both end") { !isAlive(next) && !isAlive(worker) }
        #expect(!FileManager.default.fileExists(atPath: stand.path))
        #expect(throws: FrameStoreError.self) { try client.exchange(StoreBatch()) }
    }

    /// A supervisor is lost just when nobody needs the broker any more: whoever is left puts the files away.
    @Test func nothingIsLeftThoughTheSupervisorWasLost() throws {
        let stand = try BrokerStand(["linger=0"])
        for _ in 0..<5 {
            let client = try stand.join("last")
            let (supervisor, worker) = (try stand.supervisor(), try stand.worker())
            kill(supervisor, SIGKILL)
            client.goodbye()
            eventually("the worker ends") { !isAlive(worker) }
            eventually("nothing is left") {
                !FileManager.default.fileExists(atPath: stand.path)
                    && !FileManager.default.fileExists(atPath: stand.directory.path("broker.lock"))
            }
        }
    }

    /// More than one process has places for as a stranger: the worker connects for all of them, and none gives way to the next
    /// before its guest could greet.
    @Test func aNewWorkersOffersDoNotTakeEachOthersPlaces() throws {
        let stand = try BrokerStand()
        let keeper = try stand.join("x")
        let control = stand.directory.path("control")
        #expect(mkdir(control, 0o700) == 0)
        let guests = try (0..<48).map {
            try ClientProcess(stand, role: "guest", control + "/g\($0)", "x", "0")
        }
        for guest in guests { #expect(guest.line() == "ready") }
        // None greets before all have been offered one.
        for guest in guests { #expect(kill(guest.identifier, SIGSTOP) == 0) }
        let old = try stand.worker()
        #expect(kill(old, SIGKILL) == 0)
        eventually("there is a new worker") { (try? stand.worker()).map { $0 != old } ?? false }
        usleep(1_000_000)
        for guest in guests { #expect(kill(guest.identifier, SIGCONT) == 0) }
        let offers = guests.map { Int(joined($0).dropFirst("joined ".count)) ?? 1000 }
        // One that is late is offered another.
        #expect(offers.reduce(0, +) < 48 * 3 / 2, "\(offers)")
        withExtendedLifetime(keeper) {}
    }

    /// One that is busy, and one that is stopped for longer than its door has room, are offered another; all others are left alone
    /// meanwhile.
    @Test func whoAnswersLateIsOfferedAnother() throws {
        let stand = try BrokerStand()
        let keeper = try stand.join("x")
        let control = stand.directory.path("control")
        #expect(mkdir(control, 0o700) == 0)
        func start(_ name: String, busy: Int) throws -> ClientProcess {
            let guest = try ClientProcess(stand, role: "guest", control + "/" + name, "x", "\(busy)")
            #expect(guest.line() == "ready")
            return guest
        }
        let calm = try start("calm", busy: 0)
        let busy = try start("busy", busy: 4)
        let stopped = try start("stopped", busy: 0)
        #expect(kill(stopped.identifier, SIGSTOP) == 0)
        // As those who only look do: they stay in its queue.
        for _ in 0..<12 { _ = try? PacketSocket.connect(to: control + "/stopped").peer() }
        #expect(kill(try stand.worker(), SIGKILL) == 0)
        #expect(joined(calm) == "joined 1" && joined(busy) == "joined 5")
        #expect(kill(stopped.identifier, SIGCONT) == 0)
        #expect(joined(stopped).hasPrefix("joined "))
        // Who looked for the others knocked once or twice.
        calm.killNow()
        var looks = 0
        while calm.line() == "looked" { looks += 1 }
        #expect(looks < 3)
        withExtendedLifetime(keeper) {}
    }

    /// What it says when it has joined; empty when it does not within a minute.
    private func joined(_ guest: ClientProcess) -> String {
        let said = Monitor("")
        nonisolated(unsafe) let guest = guest
        Thread.detachNewThread {
            while true {
                let line = guest.line()
                if line == "looked" { continue }
                return said.update { $0 = line }
            }
        }
        return said.wait(until: monotonicNanoseconds() + 60_000_000_000) { $0.isEmpty ? nil : $0 } ?? ""
    }

    @Test func domainsNeverShare() throws {
        let stand = try BrokerStand()
        let stores = [try stand.join("a"), try stand.join("b"), try stand.join(nil), try stand.join(nil)]
        #expect(Set(stores.map(\.epoch)).count == 4 && Set(stores.map(\.secret)).count == 4)
        for store in stores {
            // The same hash, the same bytes: still nobody else's.
            var batch = StoreBatch()
            batch.sightings = [.init(page: 0, hash: ContentHash(low: 1, high: 2))]
            #expect(try store.exchange(batch).sightings == [.recorded])
            #expect(try store.publish([(1, page(1))]).publications == [.recorded])
        }
        #expect(try stand.figures().total.frames == 0)
        for name in ["", "a b", "private.1", String(repeating: "x", count: 65), "ä", "a/b"] {
            #expect(throws: BrokerError.self) {
                try BrokerStore.connect(path: stand.path, domain: name, pageCount: 1)
            }
        }
    }

    @Test func badDirectoriesAreRefused() throws {
        let stand = try BrokerStand()
        chmod(stand.directory.path, 0o755)
        #expect(throws: BrokerError.self) { try stand.join("x") }
        #expect(throws: BrokerError.self) {
            try BrokerLauncher.connectOrStart(
                stateDirectory: "relative", executable: program("mingle-broker"), domain: nil, pageCount: 1)
        }
    }
}
