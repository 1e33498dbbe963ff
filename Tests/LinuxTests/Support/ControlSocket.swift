import Foundation
import MingleSupport
import TestSupport
import VMMProtocol

/// A client of a guest's control socket (docs/control.md). What it paused goes on when it is gone.
final class ControlSocket: Sendable {
    private let descriptor: Int32

    /// - Parameter path: at most 107 bytes; waited for until somebody listens there.
    init(_ path: String, within seconds: Double = Mingle.patience) throws {
        var address = sockaddr_un()
        address.sun_family = sa_family_t(AF_UNIX)
        let bytes = Array(path.utf8)
        guard bytes.count < MemoryLayout.size(ofValue: address.sun_path) else {
            throw Failure("\(path) is too long for a socket")
        }
        withUnsafeMutableBytes(of: &address.sun_path) { $0.copyBytes(from: bytes) }
        let type = Int32(SOCK_SEQPACKET.rawValue) | Int32(SOCK_CLOEXEC.rawValue)
        descriptor = socket(AF_UNIX, type, 0)
        guard descriptor >= 0 else { throw Failure("socket: \(errno)") }
        var patience = timeval(tv_sec: 1200, tv_usec: 0)
        setsockopt(descriptor, SOL_SOCKET, SO_RCVTIMEO, &patience, socklen_t(MemoryLayout<timeval>.size))
        let descriptor = descriptor
        let connected = eventually(within: seconds) {
            withUnsafeBytes(of: &address) { raw in
                connect(
                    descriptor, raw.baseAddress?.assumingMemoryBound(to: sockaddr.self),
                    socklen_t(MemoryLayout<sockaddr_un>.size)) == 0
            }
        }
        guard connected else { throw Failure("nobody listens at \(path)") }
    }

    deinit { close(descriptor) }

    private func receive() throws -> [UInt8] {
        var buffer = [UInt8](repeating: 0, count: 65536)
        let count = recv(descriptor, &buffer, buffer.count, 0)
        guard count > 0 else { throw Failure("the control socket gave no answer (\(count), errno \(errno))") }
        return Array(buffer[..<count])
    }

    /// - Returns: the answer; one that begins with `error: ` is thrown.
    @discardableResult
    func ask(_ command: String) throws -> String {
        let bytes = Array(command.utf8)
        guard send(descriptor, bytes, bytes.count, Int32(MSG_NOSIGNAL)) == bytes.count else {
            throw Failure("the control socket does not take '\(command)'")
        }
        let answer = String(decoding: try receive(), as: UTF8.self)
        guard !answer.hasPrefix("error: ") else { throw Failure("\(command): \(answer)") }
        return answer
    }

    /// The checksums of all of the guest's pages, 16 bytes each.
    func digestsOfAllPages() throws -> [UInt8] {
        let words = try ask("digest pages checksum").split(separator: " ")
        guard words.first == "digest", let count = words.last.flatMap({ Int($0) }), count > 0 else {
            throw Failure("not a digest's answer: \(words)")
        }
        var digests: [UInt8] = []
        while digests.count < count * 16 { digests += try receive() }
        guard digests.count == count * 16 else { throw Failure("\(digests.count) bytes of \(count) digests") }
        return digests
    }

    func stats() throws -> GuestStatistics {
        let text = try ask("stats")
        guard let stats = GuestStatistics(json: text) else { throw Failure("not a guest's figures: \(text)") }
        return stats
    }
}
