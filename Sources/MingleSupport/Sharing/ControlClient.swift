public import VMMProtocol
internal import BrokerClient
internal import GuestMemory
internal import LinuxHost
internal import FrameStore

/// A connection to the control socket of one guest (docs/control.md). One thread at a time.
public final class ControlClient {
    public let guest: String
    private let socket: PacketSocket
    private let seconds: Double
    private var buffer = [UInt8](repeating: 0, count: ControlAnswer.packetLimit)

    /// Connects.
    /// - Parameter seconds: how long any answer may take.
    public init(guest: String, path: String, seconds: Double = 10) throws(SupportError) {
        self.guest = guest
        self.seconds = seconds
        do throws(LinuxError) {
            socket = try Self.connect(
                try Self.checked(path), until: monotonicNanoseconds() + UInt64(seconds * 1e9))
        } catch {
            throw .guest(name: guest, reason: "no answer at its control socket: \(error)")
        }
    }

    /// Who waits in front of us may take all places for a moment.
    private static func connect(_ path: String, until deadline: UInt64) throws(LinuxError) -> PacketSocket {
        while true {
            do throws(LinuxError) { return try PacketSocket.connect(to: path) } catch {
                guard error.code == 11, monotonicNanoseconds() < deadline else { throw error }
            }
            SystemCall.sleep(milliseconds: 10)
        }
    }

    private static func checked(_ path: String) throws(LinuxError) -> String {
        guard path.utf8.count <= SocketPath.maximumLength else {
            throw LinuxError(operation: "connect", code: 36, subject: path)
        }
        return path
    }

    /// The answer to a command; one that says why nothing was done is thrown.
    @discardableResult
    public func ask(_ command: ControlCommand) throws(SupportError) -> String { try ask(command.text) }

    /// The same for a command as people type it.
    @discardableResult
    public func ask(_ command: String) throws(SupportError) -> String {
        let sent = socket.send(Array(command.utf8))
        // A guest that does not serve us has said why, and closed the connection, before it was asked.
        let answer = try said()
        guard case .done = sent else { throw .guest(name: guest, reason: "the connection was lost") }
        return answer
    }

    /// Hands the guest a connection to a broker, and waits until it has taken it.
    /// - Parameter broker: the socket of one that runs.
    public func offer(broker: String) throws(SupportError) {
        do throws(LinuxError) {
            let connection = try PacketSocket.connect(to: broker)
            let sent = socket.send(
                Array(ControlCommand.broker.text.utf8), passing: connection.descriptor.number)
            guard case .done = sent else {
                throw LinuxError(operation: "send", code: 32, subject: "a connection")
            }
        } catch { throw .guest(name: guest, reason: "no broker could be offered: \(error)") }
        _ = try said()
    }

    /// The first packet of an answer.
    private func said() throws(SupportError) -> String {
        switch ControlAnswer(String(decoding: try receive(), as: UTF8.self)) {
        case .said(let text): return text
        case .refused(let reason): throw .guest(name: guest, reason: reason)
        }
    }

    public func statistics() throws(SupportError) -> GuestStatistics {
        guard let statistics = GuestStatistics(json: try ask(.statistics)) else {
            throw .guest(
                name: guest, reason: "its statistics cannot be read: is mingle-vmm of the same version?")
        }
        return statistics
    }

    /// Why its pages are shared or not.
    public func explain() throws(SupportError) -> ShareExplanation {
        let head = try ask(.explain(page: nil))
        guard let answer = try ShareExplanation(receiving: packets(after: head)) else { throw unreadable }
        return answer
    }

    /// Why a page is shared or not.
    /// - Parameter page: its number in the guest's memory file.
    public func explain(page: Int) throws(SupportError) -> PageShareExplanation {
        guard let answer = PageShareExplanation(try ask(.explain(page: page))) else { throw unreadable }
        return answer
    }

    private var unreadable: SupportError {
        .guest(name: guest, reason: "its answer cannot be read: is mingle-vmm of the same version?")
    }

    /// What its process takes of memory, as the kernel tells the process itself; nil when it does not say so.
    public func processMemory() -> ProcessMemory? {
        (try? ask(.memory)).flatMap { ProcessMemory(smapsRollup: $0) }
    }

    /// Digests of its pages; the guest should be paused.
    /// - Parameters:
    ///   - everyPage: of each page, that of zeros where none is allocated; else of allocated pages only.
    ///   - isChecksum: checksums instead, which an emulated processor is quick with.
    public func digests(everyPage: Bool, isChecksum: Bool = false) throws(SupportError) -> [PageDigest] {
        let head = try ask(.digest(everyPage: everyPage, isChecksum: isChecksum))
        var digests: [PageDigest] = []
        guard try PageDigests.receive(from: packets(after: head), { digests.append(PageDigest($0)) }) else {
            throw .guest(name: guest, reason: "its digests cannot be read")
        }
        return digests
    }

    /// The packets of an answer, of which the first has come.
    private func packets(after head: String) -> () throws(SupportError) -> [UInt8] {
        var head: [UInt8]? = Array(head.utf8)
        return { () throws(SupportError) -> [UInt8] in
            defer { head = nil }
            if let head { return head }
            return try self.receive()
        }
    }

    private func receive() throws(SupportError) -> [UInt8] {
        let deadline = monotonicNanoseconds() + UInt64(seconds * 1e9)
        while true {
            switch socket.receive(into: &buffer) {
            case .packet(let bytes, let passed):
                if passed >= 0 { _ = OwnedDescriptor(adopting: passed) }
                return bytes
            case .nothing:
                guard socket.waitForInput(until: deadline) else {
                    throw .guest(name: guest, reason: "no answer within \(seconds) s")
                }
            case .closed, .odd: throw .guest(name: guest, reason: "the connection was lost")
            }
        }
    }
}

/// The digest of a page's content; that of zeros is zero.
public struct PageDigest: Hashable, Sendable {
    let high: UInt64
    let low: UInt64

    init(high: UInt64, low: UInt64) { (self.high, self.low) = (high, low) }

    /// 16 bytes.
    init(_ bytes: some Collection<UInt8>) {
        (high, low) = (
            bytes.prefix(8).reduce(0) { $0 << 8 | UInt64($1) },
            bytes.dropFirst(8).reduce(0) { $0 << 8 | UInt64($1) }
        )
    }

    public var isZero: Bool { high == 0 && low == 0 }
}
