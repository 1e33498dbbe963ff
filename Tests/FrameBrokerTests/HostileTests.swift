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

/// Whatever one client does, the others are served and the broker stays small.
@Suite(.serialized) struct HostileTests {
    /// The frames that were answered for pages hold the pages' bytes.
    private func check(
        _ answers: [StoreAnswer], _ pages: [(UInt32, [UInt8])], in store: BrokerStore
    ) {
        for (answer, (_, bytes)) in zip(answers, pages) {
            guard case .frame(let location) = answer else {
                Issue.record("\(answer)")
                continue
            }
            var read = [UInt8](repeating: 0, count: 4096)
            pread(store.storeDescriptor.number, &read, 4096, Int(location.fileOffset))
            #expect(read == bytes)
        }
    }
    @Test func garbageAndMutatedMessages() throws {
        let stand = try BrokerStand()
        let honest = try Honest(stand)
        let worker = try stand.worker()
        let staging = try StagingArea()
        var random = SeededGenerator(for: "broker fuzz")
        var batch = StoreBatch()
        batch.relocated = [.init(page: 2, location: FrameLocation(3))]
        batch.forgotten = [1, 2]
        batch.sightings = [.init(page: 3, hash: ContentHash(low: 4, high: 5))]
        batch.uniform = [.init(page: 6, pattern: 7)]
        batch.publications = [.init(page: 8, slot: 9)]
        let seeds = [
            Hello(domain: "honest", pageCount: 64).encoded(), BatchCoding.encode(batch, number: 1),
            FiguresPart.request(firstDomain: 0, firstClient: 0), WireWriter(.observe).bytes,
            WireWriter(.goodbye).bytes, WireWriter(.notice).bytes,
        ]
        var client = try RawClient(stand.path)
        var before = 0
        for round in 0..<3000 {
            if round == 300 { before = try memory(worker) }
            if random.oneIn(2) || client.socket == nil {
                client = try RawClient(stand.path)
                if random.oneIn(2) { _ = client.join("honest", staging: staging.descriptor.number) }
            }
            var message = seeds.randomElement(using: &random)!
            switch Int.random(in: 0..<5, using: &random) {
            case 0: message = (0..<Int.random(in: 1...300, using: &random)).map { _ in random.byte() }
            case 1: message.removeLast(Int.random(in: 0..<message.count, using: &random))
            case 2: message += (0..<Int.random(in: 1...8, using: &random)).map { _ in random.byte() }
            case 3:
                for _ in 0..<3 { message[Int.random(in: 0..<message.count, using: &random)] = random.byte() }
            default:
                message[Int.random(in: 0..<message.count, using: &random)] ^=
                    1 << UInt8.random(in: 0..<8, using: &random)
            }
            if message.isEmpty { message = [0] }
            let passed: Int32 = random.oneIn(3) ? staging.descriptor.number : -1
            if client.send(message, passing: passed) != .done { client.hangUp() }
            if round % 500 == 0 { try honest.check(round) }
        }
        client.hangUp()
        try honest.check(-1)
        #expect(try stand.worker() == worker, "it never crashed")
        #expect(try memory(worker) - before < 8 << 10)
        #expect(try descriptors(worker) < 64 + 70 * 4)
    }

    @Test func oddMessagesCloseTheConnection() throws {
        let stand = try BrokerStand()
        let honest = try Honest(stand)
        let staging = try StagingArea()
        let number = staging.descriptor.number
        let good = BatchCoding.encode(StoreBatch(), number: 1)
        var tooMany = WireWriter(.batch)
        for value in [UInt32(1), .max, 0, 0, 0, 0] { tooMany.put(value) }
        let odd: [(String, [UInt8])] = [
            ("trailing bytes", good + [0]), ("too short", Array(good.dropLast())), ("counts", tooMany.bytes),
            ("a second greeting", Hello(domain: "honest", pageCount: 4).encoded()), ("unknown", [99]),
            ("an answer", WireWriter(.welcome).bytes), ("too long", [UInt8](repeating: 3, count: 150_000)),
        ]
        for (what, message) in odd {
            let client = try RawClient(stand.path)
            #expect(client.join("honest", staging: number) == .welcome)
            #expect(client.send(message) == .done, "\(what)")
            #expect(client.receive() == nil, "\(what)")
        }
        // A descriptor where none belongs is closed, and only one may ever come.
        let client = try RawClient(stand.path)
        #expect(client.join("honest", staging: number) == .welcome)
        let worker = try stand.worker()
        let before = try descriptors(worker)
        for _ in 0..<500 {
            #expect(client.send(good, passing: number) == .done && client.receive()?.first == 131)
        }
        // The answer may be here before the last one is closed.
        #expect(try descriptors(worker) <= before + 1)
        // Greetings that are declined.
        func refusal(_ message: [UInt8], _ descriptor: Int32) throws -> RefusalReason? {
            let client = try RawClient(stand.path)
            #expect(client.send(message, passing: descriptor) == .done)
            guard let answer = client.receive(), answer.first == MessageKind.refusal.rawValue else {
                return nil
            }
            return RefusalReason(rawValue: answer[1])
        }
        let hello = Hello(domain: "honest", pageCount: 4).encoded()
        #expect(try refusal(hello, -1) == .staging)
        #expect(try refusal(hello, open("/dev/null", O_RDONLY)) == .staging)
        #expect(try refusal(hello, eventfd(0, 0)) == .staging)
        #expect(try refusal(Hello(domain: "a b", pageCount: 4).encoded(), number) == .name)
        #expect(try refusal(Hello(domain: "private.1", pageCount: 4).encoded(), number) == .name)
        #expect(try refusal(Hello(domain: "x", pageCount: 0).encoded(), number) == .pages)
        #expect(try refusal(Hello(domain: "x", pageCount: .max).encoded(), number) != nil)
        var other = hello
        other[5] ^= 0x7f
        #expect(try refusal(other, number) == .version)
        try honest.check(1)
        #expect(try stand.figures().domains.count == 1, "declined greetings leave no domain")
    }

    @Test func whoStopsReadingIsPutAway() throws {
        let stand = try BrokerStand(["unread=600"])
        let honest = try Honest(stand)
        let staging = try StagingArea()
        let worker = try stand.worker()
        let client = try RawClient(stand.path)
        #expect(client.join("honest", pages: 4096, staging: staging.descriptor.number) == .welcome)
        let before = try memory(worker)
        var batch = StoreBatch()
        batch.forgotten = (0..<4096).map { $0 }
        let message = BatchCoding.encode(batch, number: 1)
        var sent = 0
        // On a busy machine it takes a while until the socket is full.
        let end = monotonicNanoseconds() + 60_000_000_000
        while monotonicNanoseconds() < end, client.send(message) != .broken {
            sent += 1
            if sent % 50 == 0 { try honest.check(sent) }
            usleep(2000)
        }
        try honest.check(0)
        #expect(try memory(worker) - before < 4 << 10)
        // It holds nothing for which its end would have to be waited for.
        try eventually("it is put away") { try stand.figures().clients.count == 2 }
    }

    /// A client that never reads gets one notice, whatever happens, and the broker keeps nothing for it.
    @Test func noticesDoNotPileUp() throws {
        let stand = try BrokerStand(["notice=1"])
        let honest = try Honest(stand)
        let staging = try StagingArea()
        let client = try RawClient(stand.path)
        #expect(client.join("honest", staging: staging.descriptor.number) == .welcome)
        // Frames that are freed wait for this client to speak.
        for number in 0..<50 {
            try honest.check(number)
            usleep(5000)
        }
        #expect(client.receive(orNotice: true) == [MessageKind.notice.rawValue])
        #expect(client.receive(seconds: 0.3, orNotice: true) == [])
        // Once it spoke, there may be another, before the answer or after it.
        try honest.check(50)
        #expect(client.send(BatchCoding.encode(StoreBatch(), number: 1)) == .done)
        #expect(client.receive()?.first == MessageKind.reply.rawValue)
        try honest.check(51)
        #expect(client.receive(orNotice: true) == [MessageKind.notice.rawValue])
        // A notice is nothing that a client may send.
        #expect(client.send([MessageKind.notice.rawValue]) == .done)
        #expect(client.receive() == nil)
        try honest.check(52)
    }

    /// The kernel tells the broker of a connection that was closed with unread messages before what was said last.
    @Test func aGoodbyeCountsThoughANoticeWasNotRead() throws {
        let stand = try BrokerStand(["notice=1"])
        let honest = try Honest(stand)
        let staging = try StagingArea()
        let before = try stand.figures().clients.count
        for number in 0..<20 {
            let client = try RawClient(stand.path)
            #expect(client.join("honest", staging: staging.descriptor.number) == .welcome)
            try honest.check(number)
            #expect(client.socket?.waitForInput(until: monotonicNanoseconds() + 60_000_000_000) == true)
            #expect(client.send(WireWriter(.goodbye).bytes) == .done)
            client.hangUp()
        }
        try eventually("they are gone, not silent") { try stand.figures().clients.count == before }
    }

    @Test func whoSaysNothingHoldsNothingBackForEver() throws {
        let stand = try BrokerStand(["quiet=500", "greeting=300"])
        let honest = try Honest(stand)
        let quiet = try stand.join("honest", pages: 16)
        // Never greets; and asks for statistics all the time, but has nothing to say of its pages.
        let mute = try RawClient(stand.path)
        let curious = try RawClient(stand.path)
        let staging = try StagingArea()
        #expect(curious.join("honest", staging: staging.descriptor.number) == .welcome)
        var question = WireWriter(.statistics)
        question.put(UInt32(0))
        question.put(UInt32(0))
        // Does not read its answers while others' frames are freed; then it does, and says nothing more.
        let deaf = try RawClient(stand.path)
        #expect(deaf.join("honest", staging: staging.descriptor.number) == .welcome)
        var asked = 0
        while deaf.send(question.bytes) == .done { asked += 1 }
        try honest.check(1)
        try honest.check(2)
        #expect(try stand.figures().total.retired > 0)
        usleep(300_000)
        for _ in 0..<asked { _ = deaf.receive() }
        try eventually("the frames are freed all the same") {
            _ = try honest.first.exchange(StoreBatch())
            _ = try honest.second.exchange(StoreBatch())
            if curious.send(question.bytes) == .done { _ = curious.receive() }
            return try stand.figures().total.retired == 0
        }
        #expect(throws: FrameStoreError.self) { try quiet.exchange(StoreBatch()) }
        #expect(mute.receive() == nil && curious.receive() == nil && deaf.receive() == nil)
    }

    @Test func stagingMayChangeOrVanish() throws {
        let stand = try BrokerStand()
        let honest = try Honest(stand)
        // Only the size is promised: unsealed it is declined, and what lies in it may change while it is copied.
        let loose = mingle_memfd_create("loose", 0)
        ftruncate(loose, 1 << 20)
        #expect(try RawClient(stand.path).join("honest", staging: loose) == .refusal)
        close(loose)
        let evil = try stand.join("honest", pages: 4096)
        let stop = Monitor(false)
        let area = evil.staging
        let writer = try HostThread(name: "changer") {
            var round = 0
            while !stop.withLock({ $0 }) {
                area.write(page(round % 7, 5), slot: UInt32(round % 4))
                if round % 64 == 0 { _ = mingle_punch_hole(area.descriptor.number, 0, 16384) }
                round += 1
            }
        }
        for number in 0..<300 {
            let pages = (0..<4).map { (UInt32($0), page((number + $0) % 7, 5)) }
            _ = try honest.first.sight(pages, honest.hasher)
            var batch = StoreBatch()
            batch.publications = (0..<4).map { .init(page: UInt32(number * 4 + $0), slot: UInt32($0)) }
            for case .frame(let location) in try evil.exchange(batch).publications {
                // A frame holds what its hash says, also when the staging area changed: the copy was hashed.
                var bytes = [UInt8](repeating: 0, count: 4096)
                pread(evil.storeDescriptor.number, &bytes, 4096, Int(location.fileOffset))
                var again = StoreBatch()
                again.sightings = [.init(page: 4000, hash: honest.hasher(bytes))]
                #expect(try honest.second.exchange(again).sightings == [.frame(location)])
            }
        }
        stop.update { $0 = true }
        writer.join()
        try honest.check(3)
    }

    @Test func falseReleasesAndEndlessSightings() throws {
        let stand = try BrokerStand()
        let honest = try Honest(stand)
        let evil = try stand.join("honest", pages: 4096)
        let worker = try stand.worker()
        let pages = (0..<200).map { (UInt32($0), page($0, 12)) }
        _ = try honest.first.sight(pages, honest.hasher)
        let leases = try honest.second.publish(pages).publications
        let before = try memory(worker)
        for round in 0..<60 {
            // Releases what it never had, retains the same twice, sights without end.
            _ = try evil.forget((0..<4096).map { $0 })
            _ = try evil.sight(pages.map { ($0.0, $0.1) } + pages.map { ($0.0, $0.1) }, honest.hasher)
            var batch = StoreBatch()
            batch.sightings = (0..<4096).map {
                .init(page: $0, hash: ContentHash(low: UInt64(round) << 32 | UInt64($0), high: 0))
            }
            _ = try evil.exchange(batch)
        }
        let numbers = try stand.figures().total
        #expect(numbers.frames == 200 && numbers.references == 400 && numbers.sightings == 4096)
        #expect(try memory(worker) - before < 4 << 10)
        check(leases, pages, in: honest.first)
    }

    /// It says that it maps nothing any more of what it learned before, and does; and says so of others, and in its only connection.
    @Test func falseMovesCostOnlyTheLiar() throws {
        let stand = try BrokerStand()
        let honest = try Honest(stand)
        let pages = (0..<50).map { (UInt32($0), page($0, 13)) }
        _ = try honest.first.sight(pages, honest.hasher)
        let leases = try honest.second.publish(pages).publications
        var claim = StoreBatch()
        claim.hasMovedOver = true
        let history = SessionHistory()
        var evil = try stand.join("honest", pages: 64, history: history)
        for _ in 0..<8 {
            _ = try evil.sight(pages, honest.hasher)
            // Nothing of an open connection is dropped, its own neither.
            _ = try evil.exchange(claim)
            #expect(try stand.figures().total.references == 150)
            // It keeps what it maps, loses its connection, comes back and denies it.
            evil.disconnect()
            try eventually("it is silent") { try stand.figures().clients.contains { $0.isSilent } }
            evil = try stand.join("honest", pages: 64, history: history)
            _ = try evil.exchange(claim)
            try eventually("what it denied is dropped") { try stand.figures().total.references == 100 }
        }
        let numbers = try stand.figures()
        #expect(numbers.total.frames == 50 && numbers.clients.count == 3)
        check(leases, pages, in: honest.first)
    }

    /// A frame moves that two honest clients map; a third says that they have followed, that it has itself, and what else it likes.
    @Test func falseWordsOfRelocationMoveNothing() throws {
        let stand = try BrokerStand()
        let honest = try Honest(stand)
        let (first, second) = (honest.first, honest.second)
        let evil = try stand.join("honest", pages: 4096)
        for store in [first, second, evil] {
            for number in 0...1 { _ = try store.publish([(UInt32(number), page(number, 14))]) }
        }
        // The neighbour's next place is taken as long as the third holds it.
        for store in [first, second] { _ = try store.publish([(1, page(9, 14))]) }
        guard case .frame(let old)? = try second.publish([(1, page(9, 14))]).publications.first else {
            Issue.record("nothing was shared")
            return
        }
        _ = try evil.forget([1])
        var moved: [Relocation] = []
        try eventually("the frame moves") {
            for store in [evil, second] { _ = try store.exchange(.forPromotionsOnly) }
            moved = try first.exchange(StoreBatch()).moved
            return !moved.isEmpty
        }
        #expect(moved.count == 1 && moved[0].page == 1)
        let new = moved[0].location
        let frames: [StoreAnswer] = [.frame(old), .frame(new)]
        let pages = [(UInt32(1), page(9, 14)), (1, page(9, 14))]
        var batch = StoreBatch()
        for round in 0..<20 {
            if round == 10 { #expect(try evil.publish([(1, page(9, 14))]).publications == [.frame(new)]) }
            batch.relocated = (0..<4096).map { .init(page: round % 2 == 0 ? 1 : $0, location: new) }
            _ = try evil.exchange(batch)
            for store in [first, second, evil] { _ = try store.exchange(.forPromotionsOnly) }
            check(frames, pages, in: first)
        }
        // More than fit, and pages that it does not have.
        let staging = try StagingArea()
        for (count, page) in [(4097, UInt32(1)), (1, 64)] {
            let client = try RawClient(stand.path)
            #expect(client.join("honest", staging: staging.descriptor.number) == .welcome)
            batch.relocated = [Relocation](repeating: .init(page: page, location: new), count: count)
            #expect(client.send(BatchCoding.encode(batch, number: 1)) == .done && client.receive() == nil)
        }
        // Honest words end it.
        batch.relocated = moved
        for store in [first, second] { _ = try store.exchange(batch) }
        check([frames[1]], [pages[1]], in: second)
        try eventually("the old place is free") {
            for store in [first, second, evil] { _ = try store.exchange(.forPromotionsOnly) }
            return try stand.figures().total.retired == 0
        }
        try honest.check(2)
    }

    /// One process connects on behalf of many guests, as a supervisor does that offers a new worker to them: more at once than
    /// it has places as a stranger. Who has greeted is heard before it has to go.
    @Test func whoHasGreetedIsHeardBeforeItsPlaceIsTaken() throws {
        let stand = try BrokerStand()
        let first = try stand.join("honest")
        let worker = try stand.worker()
        let staging = try StagingArea()
        #expect(kill(worker, SIGSTOP) == 0)
        let clients = try (0..<24).map { _ in try RawClient(stand.path) }
        let hello = Hello(domain: "honest", pageCount: 4).encoded()
        for client in clients { #expect(client.send(hello, passing: staging.descriptor.number) == .done) }
        #expect(kill(worker, SIGCONT) == 0)
        for client in clients { #expect(client.receive()?.first == MessageKind.welcome.rawValue) }
        #expect(try stand.figures().clients.count == 25)
        _ = try first.exchange(StoreBatch())
    }
}
