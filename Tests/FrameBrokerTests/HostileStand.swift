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

/// A client that says what it likes.
final class RawClient {
    private(set) var socket: PacketSocket?
    private var buffer = [UInt8](repeating: 0, count: BrokerProtocol.messageLimit)
    init(_ path: String) throws { socket = try PacketSocket.connect(to: path) }

    func send(_ bytes: [UInt8], passing descriptor: Int32 = -1) -> PacketSocket.Sent {
        socket?.send(bytes, passing: descriptor) ?? .broken
    }
    /// The next message; nil when the broker closed the connection. Notices may come at any time: only who asks gets them.
    func receive(seconds: Double = 60, orNotice: Bool = false) -> [UInt8]? {
        let end = monotonicNanoseconds() + UInt64(seconds * 1e9)
        while let received = socket?.receive(into: &buffer) {
            switch received {
            case .packet(let bytes, let passed):
                if passed >= 0 { close(passed) }
                if orNotice || bytes.first != MessageKind.notice.rawValue { return bytes }
            case .nothing: if socket?.waitForInput(until: end) != true { return [] }
            case .closed, .odd: return nil
            }
        }
        return nil
    }
    func join(_ domain: String, pages: UInt32 = 64, staging: Int32) -> MessageKind? {
        guard send(Hello(domain: domain, pageCount: pages).encoded(), passing: staging) == .done else {
            return nil
        }
        return receive()?.first.flatMap { MessageKind(rawValue: $0) }
    }
    func hangUp() { socket = nil }
}

/// An honest pair that shares a page, and is asked at the end whether all is well.
struct Honest {
    let first: BrokerStore
    let second: BrokerStore
    let hasher: PageHasher
    init(_ stand: BrokerStand, _ domain: String = "honest") throws {
        first = try stand.join(domain, pages: 4096)
        second = try stand.join(domain, pages: 4096)
        hasher = try #require(PageHasher(secret: first.secret))
    }
    func check(_ number: Int) throws {
        let bytes = page(number, 77)
        #expect(try first.sight([(1, bytes)], hasher).sightings == [.recorded])
        guard case .frame(let location)? = try second.publish([(1, bytes)]).publications.first else {
            Issue.record("the honest clients cannot share")
            return
        }
        var read = [UInt8](repeating: 0, count: 4096)
        pread(first.storeDescriptor.number, &read, 4096, Int(location.fileOffset))
        #expect(read == bytes)
        _ = try first.forget([1])
        _ = try second.forget([1])
    }
}

/// Anonymous memory, KiB.
func memory(_ process: Int32) throws -> Int {
    let status = try #require(SystemCall.text(of: "/proc/\(process)/status"))
    return Int(try #require(SmallFile.table(status)["RssAnon"]))
}
func descriptors(_ process: Int32) throws -> Int {
    try FileManager.default.contentsOfDirectory(atPath: "/proc/\(process)/fd").count
}
