@testable import FrameStore
@testable import BrokerClient
import Foundation
import GuestMemory
@testable import LinuxHost
import Testing
import TestSupport

@testable import FrameBroker
@testable import Sharing

/// Namespaces need root, and unshare(1).
private let namespaceProblem: String? =
    if geteuid() != 0 { "namespaces of one's own need root" } else if access("/usr/bin/unshare", X_OK) != 0 {
        "there is no /usr/bin/unshare: install util-linux"
    } else { nil }

extension Trait where Self == ConditionTrait {
    static var needsNamespaces: Self {
        .enabled(if: namespaceProblem == nil, Comment(rawValue: namespaceProblem ?? "namespaces: there"))
    }
}

/// Process and user numbers that say nothing.
@Suite(.serialized) struct NamespaceTests {
    static let ownProcesses = ["/usr/bin/unshare", "--pid", "--fork", "--kill-child"]

    /// All clients have one number for such a broker, 0; what one says of itself is no other's affair.
    @Test(.needsNamespaces) func aBrokerThatSeesNoProcessKeepsClientsApart() throws {
        let stand = try BrokerStand(startedBy: Self.ownProcesses)
        let keeper = try stand.join("apart", pages: 8)
        let frozen = try ClientProcess(stand, "apart", pages: 300)
        #expect(frozen.line() == "ready 0")
        let second = try ClientProcess(stand, "apart", pages: 300)
        #expect(second.line() == "ready 300")
        #expect(frozen.tell("hold") == "hold 300")
        #expect(frozen.tell("map") == "map 300")
        #expect(frozen.tell("close") == "close 300")
        try eventually("it is silent") { try stand.figures().clients.contains { $0.isSilent } }
        // The other one ends: its references go though it has no number.
        second.killNow()
        try eventually("the references of a killed client go") {
            try stand.figures().total.references == 300
        }
        // A third lost its connection, too, and moved over.
        let third = try ClientProcess(stand, "apart", pages: 1)
        #expect(third.line() == "ready 1")
        #expect(third.tell("move") == "move 0")
        try eventually("what it held itself goes") { try stand.figures().total.references == 300 }
        // Whoever holds freed frames back speaks, so that they are discarded.
        for _ in 0..<20 {
            _ = try keeper.exchange(StoreBatch())
            _ = third.tell("hold")
            usleep(10_000)
        }
        #expect(try stand.figures().total.references == 300)
        #expect(frozen.tell("read") == "read 300")
    }

    /// As on Linux 6.1, where only numbers prove anything: then who has none is told why, and nobody is served by mistake.
    @Test(.needsNamespaces) func anOlderKernelRefusesWhomItCannotTell() throws {
        let stand = try BrokerStand(
            startedBy: Self.ownProcesses, options: ["passesDescriptors=0", "hasInodes=0"])
        do {
            _ = try stand.join("apart")
            Issue.record("it was welcome")
        } catch let error as BrokerError {
            guard case .refused(.identity, let text) = error else { throw error }
            #expect(text.contains("PID namespace"))
        }
        // Linux 6.5 tells when a process ends, and nothing that tells one from another.
        let middle = try BrokerStand(startedBy: Self.ownProcesses, options: ["hasInodes=0"])
        #expect(throws: BrokerError.self) { try middle.join("apart") }
        // Statistics are anybody's of this user.
        #expect(try middle.figures().clients == [])
    }

    @Test(arguments: [["passesDescriptors=0", "hasInodes=0"], ["hasInodes=0"]])
    func anOlderKernelTellsWhomItSees(_ options: [String]) throws {
        let stand = try BrokerStand(options + ["clientsOfProcess=2"])
        let keeper = try stand.join("old", pages: 8)
        let first = try ClientProcess(stand, "old", pages: 100)
        #expect(first.line() == "ready 0")
        let second = try ClientProcess(stand, "old", pages: 100)
        #expect(second.line() == "ready 100")
        #expect(first.tell("hold") == "hold 100")
        #expect(second.tell("close") == "close 100")
        second.killNow()
        try eventually("the references of a killed client go") {
            try stand.figures().total.references == 100
        }
        #expect(first.tell("move") == "move 0")
        try eventually("what it moved from is gone") { try stand.figures().total.references == 0 }
        let held = [keeper, try stand.join("old")]
        #expect(throws: BrokerError.self) { try stand.join("old") }
        withExtendedLifetime(held) {}
    }

    /// The socket may be handed on: who says hello is the client, and lives as long as its references.
    @Test func whoSaysHelloIsTheClient() throws {
        let stand = try BrokerStand()
        let keeper = try stand.join("handed", pages: 8)
        let hasher = try #require(PageHasher(secret: keeper.secret))
        // A process connects, hands the connection to us, and ends.
        let us = try PacketSocket.listen(at: stand.directory.path("us"), backlog: 1)
        let connector = try ChildProcess(
            program("broker-test-client"), ["hand", stand.path, stand.directory.path("us")],
            streams: [.nothing, .nothing, .nothing])
        #expect(try connector.wait(within: 30) == 0)
        let meeting = try us.accept()
        var buffer = [UInt8](repeating: 0, count: 16)
        guard case .packet(_, let passed) = meeting.receive(into: &buffer), passed >= 0 else {
            Issue.record("no connection came")
            return
        }
        let store = try BrokerStore.connect(
            over: BrokerConnection(OwnedDescriptor(adopting: passed)), domain: "handed", pageCount: 8)
        #expect(store.epoch == keeper.epoch)
        _ = try store.sight([(1, page(1))], hasher)
        _ = try keeper.publish([(1, page(1))])
        for _ in 0..<10 {
            _ = try store.exchange(StoreBatch())
            usleep(10_000)
        }
        #expect(try stand.figures().total.references == 2)
        #expect(try stand.figures().clients.map(\.process) == [getpid(), getpid()])
        // What is no connection to a broker of this user is none.
        for path in ["/dev/null", stand.directory.path] {
            let file = try OwnedDescriptor.open(path, flags: O_RDONLY)
            #expect(throws: BrokerError.self) {
                _ = try BrokerConnection(OwnedDescriptor(adopting: dup(file.number)))
            }
        }
    }

    // MARK: users

    /// Where the broker's own user has no number, everybody seems to be that user.
    @Test(.needsNamespaces) func aBrokerThatCannotTellUsersRefusesToServe() throws {
        let stand = try BrokerStand()
        let child = try stand.start(by: ["/usr/bin/unshare", "--user"])
        #expect(try child.wait(within: 30) == 1)
        let log = try String(contentsOfFile: stand.directory.path("broker.log"), encoding: .utf8)
        #expect(log.contains("user namespace"), "\(log)")
        #expect(!FileManager.default.fileExists(atPath: stand.path))
        // With a number it does.
        let mapped = try BrokerStand(startedBy: ["/usr/bin/unshare", "--user", "--map-root-user"])
        _ = try mapped.join("mapped")
    }

    /// Nor does a client take anybody for the broker of its user.
    @Test(.needsNamespaces) func aClientThatCannotTellUsersTrustsNobody() throws {
        let stand = try BrokerStand()
        let store = try stand.join("trust", pages: 8)
        let output = stand.directory.path("output")
        let child = try ChildProcess(
            "/usr/bin/unshare",
            ["--user", program("broker-test-client"), "client", stand.path, "trust", "8"],
            streams: [.nothing, .into(output), .file(output + ".errors", O_WRONLY | O_CREAT)])
        #expect(try child.wait(within: 30) != 0)
        let said = try String(contentsOfFile: output + ".errors", encoding: .utf8)
        #expect(said.contains("user namespace"), "\(said)")
        #expect(try stand.figures().clients.count == 1)
        withExtendedLifetime(store) {}
    }

    @Test func whichUserNumbersProveSomething() {
        func numbers(_ own: UInt32, _ overflow: String?, _ map: String?) -> UserNumbers {
            UserNumbers(own: own, overflowText: overflow, map: map)
        }
        let all = "         0          0 4294967295\n"
        // The whole host's namespace: nobody is a user like any other.
        #expect(numbers(65534, "65534\n", all).isOurs(65534))
        #expect(numbers(0, "65534\n", all).isOurs(0) && !numbers(0, "65534\n", all).isOurs(65534))
        // No user at all, one user, a range with the overflow user in it.
        #expect(numbers(65534, "65534\n", "").problem != nil)
        #expect(!numbers(65534, "65534\n", "").isOurs(65534))
        #expect(numbers(0, "65534\n", "0 1000 1\n").isOurs(0))
        #expect(!numbers(0, "65534\n", "0 1000 1\n").isOurs(65534))
        #expect(!numbers(65534, "65534\n", "0 100000 65536\n").isOurs(65534))
        // The number may be another one, or unknown.
        #expect(!numbers(99, "99\n", "").isOurs(99) && numbers(65534, "99\n", "65534 0 1\n").isOurs(65534))
        #expect(!numbers(65534, nil, "").isOurs(65534) && numbers(65534, nil, nil).isOurs(65534))
        #expect(numbers(0, "65534\n", "0 1000 1\n").words(65534).contains("no number"))
    }
}
