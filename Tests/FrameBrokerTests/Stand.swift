import SharingTestKit
@testable import FrameStore
@testable import FrameIndex
@testable import BrokerClient
import Foundation
import GuestMemory
import Testing
import TestSupport

@testable import FrameBroker
@testable import Sharing
import LinuxHost

/// Programs lie beside the test bundle.
func program(_ name: String) -> String {
    let own = (try? FileManager.default.destinationOfSymbolicLink(atPath: "/proc/self/exe")) ?? ""
    return (own as NSString).deletingLastPathComponent + "/" + name
}

func eventually(_ what: String, seconds: Double = 60, _ condition: () throws -> Bool) rethrows {
    if try TestSupport.eventually(within: seconds, condition) { return }
    Issue.record("not within \(seconds) s: \(what); \(Pace.description)")
}

/// A process that runs: a zombie that its adoptive parent does not collect is over.
func isAlive(_ process: Int32) -> Bool {
    guard let state = ProcessStat(process: process)?.fields.first else { return false }
    return state != "Z" && state != "X"
}

func children(of process: Int32) -> [Int32] {
    let text = try? String(contentsOfFile: "/proc/\(process)/task/\(process)/children", encoding: .utf8)
    return (text ?? "").split(separator: " ").compactMap { Int32($0) }
}

/// A broker of a test's own; it ends when its clients have.
final class BrokerStand {
    let directory: TemporaryDirectory
    let options: [String]
    var path: String { directory.path("broker.sock") }

    /// A broker that a test started itself.
    private var started: ChildProcess?

    init(_ options: [String] = []) throws {
        directory = try TemporaryDirectory()
        chmod(directory.path, 0o700)
        self.options = ["linger=300"] + options
    }

    /// With a broker that another program starts: the words before its own.
    convenience init(startedBy words: [String], options: [String] = []) throws {
        try self.init(options)
        started = try start(by: words)
        eventually("it listens") { FileManager.default.fileExists(atPath: path) }
    }

    /// Starts a broker below another program.
    func start(by words: [String]) throws -> ChildProcess {
        let all = words + [program("mingle-broker"), "supervise", directory.path] + options
        return try ChildProcess(all[0], Array(all.dropFirst()), streams: [.nothing, .nothing, .nothing])
    }
    func join(
        _ domain: String?, pages: Int = 1024, deadline: Int = 30_000,
        history: SessionHistory = SessionHistory()
    ) throws -> BrokerStore {
        try BrokerLauncher.connectOrStart(
            stateDirectory: directory.path, executable: program("mingle-broker"), options: options,
            domain: domain,
            pageCount: pages, deadlineMilliseconds: deadline, history: history)
    }
    func figures() throws -> BrokerFigures {
        try BrokerStore.statistics(path: path, deadlineMilliseconds: 30_000)
    }
    func supervisor() throws -> Int32 { try BrokerStore.brokerProcess(path: path) }
    func worker() throws -> Int32 { try #require([figures().worker].first { $0 > 0 }) }

    deinit {
        if let process = try? supervisor() { kill(process, SIGTERM) }
    }
}

/// A client process: see Tests/BrokerTestClient.
final class ClientProcess {
    private let child: ChildProcess
    private let input: PipeEnds
    private let output: PipeEnds
    var identifier: Int32 { child.identifier }
    convenience init(_ stand: BrokerStand, _ domain: String, pages: Int) throws {
        try self.init(stand, role: "client", domain, String(pages))
    }
    init(_ stand: BrokerStand, role: String, _ arguments: String...) throws {
        var input = try PipeEnds()
        var output = try PipeEnds()
        child = try ChildProcess(
            program("broker-test-client"), [role, stand.path] + arguments,
            streams: [.descriptor(input.reading), .descriptor(output.writing), .descriptor(2)])
        input.closeReading()
        output.closeWriting()
        self.input = input
        self.output = output
    }
    func line() -> String {
        var bytes: [UInt8] = []
        var next: UInt8 = 0
        while read(output.reading, &next, 1) == 1, next != 10 { bytes.append(next) }
        return String(decoding: bytes, as: UTF8.self)
    }
    func tell(_ text: String) -> String {
        let bytes = Array((text + "\n").utf8)
        #expect(write(input.writing, bytes, bytes.count) == bytes.count)
        return line()
    }
    /// - Returns: how it ended by itself.
    func wait() throws -> Int32 { try child.wait() }
    func killNow() {
        child.kill(SIGKILL)
        _ = child.finish(blocking: true)
    }
}

/// What the conformance suite needs of a store.
protocol TestStore: FrameStore {
    var staging: StagingArea { get }
}
extension BrokerStore: TestStore {}
extension InProcessStore: TestStore {}

/// Makes clients of one kind of store.
enum StoreKind: String, CaseIterable, Sendable { case inProcess, broker }

final class StoreStand {
    let kind: StoreKind
    let stand: BrokerStand?
    private let domain: InProcessDomain?
    private let secret = [UInt8](repeating: 9, count: PageHasher.secretSize)
    private(set) var reader: Int32 = -1
    private(set) var hasher: PageHasher
    private var first: BrokerStore?

    init(_ kind: StoreKind) throws {
        self.kind = kind
        hasher = try #require(PageHasher(secret: secret))
        if kind == .broker {
            let stand = try BrokerStand()
            self.stand = stand
            domain = nil
            let first = try stand.join("conformance", pages: 1)
            self.first = first
            hasher = try #require(PageHasher(secret: first.secret))
            reader = dup(first.storeDescriptor.number)
        } else {
            stand = nil
            let backing = try MemfdBacking()
            let descriptor = try backing.readOnlyDescriptor()
            reader = dup(descriptor.number)
            withExtendedLifetime(backing) {}
            let hasher = hasher
            nonisolated(unsafe) let shared = backing
            domain = try InProcessDomain { FrameStoreCore(backing: shared) { hasher($0) } }
        }
    }
    func client(pages: Int = 1024) throws -> any TestStore {
        if let stand { return try stand.join("conformance", pages: pages) }
        let domain = try #require(domain)
        return try #require(try InProcessStore(domain, pageCount: pages))
    }
    func leave(_ store: any TestStore) {
        (store as? BrokerStore)?.goodbye()
        (store as? InProcessStore)?.end()
    }
    /// A silent member holds nothing back for the broker's own first connection.
    func speak() throws { _ = try first?.exchange(StoreBatch()) }
    func statistics() throws -> StoreStatistics {
        if let domain { return domain.statistics }
        var numbers = try #require(stand).figures().total
        numbers.clients -= 1
        return numbers
    }
    func frame(_ location: FrameLocation) -> [UInt8] {
        var bytes = [UInt8](repeating: 0, count: 4096)
        let count = pread(reader, &bytes, 4096, Int(location.fileOffset))
        return count == 4096 ? bytes : []
    }
    deinit { close(reader) }
}

func page(_ number: Int, _ salt: Int = 0) -> [UInt8] {
    var bytes = [UInt8](repeating: 0x5A, count: 4096)
    withUnsafeBytes(of: (number, salt)) { source in
        for (index, byte) in source.enumerated() { bytes[index] = byte }
    }
    return bytes
}

extension TestStore {
    func sight(_ pages: [(UInt32, [UInt8])], _ hasher: PageHasher) throws -> StoreReply {
        var batch = StoreBatch()
        batch.sightings = pages.map { .init(page: $0.0, hash: hasher($0.1)) }
        return try exchange(batch)
    }
    func publish(_ pages: [(UInt32, [UInt8])]) throws -> StoreReply {
        var batch = StoreBatch()
        for (slot, (page, bytes)) in pages.enumerated() {
            staging.write(bytes, slot: UInt32(slot))
            batch.publications.append(.init(page: page, slot: UInt32(slot)))
        }
        return try exchange(batch)
    }
    func forget(_ pages: [UInt32]) throws -> StoreReply {
        var batch = StoreBatch()
        batch.forgotten = pages
        return try exchange(batch)
    }
}
