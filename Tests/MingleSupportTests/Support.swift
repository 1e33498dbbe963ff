import Foundation
import Glibc
import TestSupport
import Testing
@testable import LinuxHost

@testable import MingleSupport
import VMMProtocol

extension TemporaryDirectory {
    /// A prepared state directory in it.
    func state() throws -> StateDirectory {
        let state = StateDirectory(path: path("mingle"))
        try state.prepare()
        return state
    }
}

/// An open file with an exclusive lock, as a VMM holds it.
final class HeldLock {
    private let descriptor: Int32

    init(_ path: String) throws {
        descriptor = open(path, O_RDONLY | O_CLOEXEC)
        try #require(descriptor >= 0)
        try #require(flock(descriptor, LOCK_EX | LOCK_NB) == 0)
    }

    func release() { flock(descriptor, LOCK_UN) }

    deinit {
        // Also where a process that another test is just starting has a copy of the descriptor.
        release()
        close(descriptor)
    }
}

/// Runs a shell script.
func startShell(_ script: String) throws -> ChildProcess { try ChildProcess("/bin/sh", ["-c", script]) }

/// A process that holds the lock of its record, as a VMM does.
func child(holding path: String, _ script: String = "exec sleep 100") throws -> ChildProcess {
    let child = try startShell("exec flock -F -x '\(path)' sh -c \"\(script)\"")
    try #require(
        eventually {
            (try? SystemCall.linkStatus(path).get()).flatMap { LockHolder.process(of: $0) }
                == child.identifier
        }, "it has the lock")
    try SystemCall.overwrite(path, with: record(process: child.identifier).text).get()
    return child
}

func record(
    name: String = "web", process: Int32 = getpid(), state: GuestRecord.State = .running
) -> GuestRecord {
    GuestRecord(
        name: name, process: process, memoryBytes: 128 << 20, cpuCount: 2, image: "debian 6.1",
        startedUnixNanoseconds: 1_700_000_000_000_000_000, state: state, guestIndex: 3,
        processNamespace: GuestRecord.localNamespace)
}

/// A packet socket at which this process listens.
struct ListeningSocket {
    private let number: Int32

    init(_ path: String) throws {
        number = socket(AF_UNIX, Int32(SOCK_SEQPACKET.rawValue), 0)
        var address = sockaddr_un()
        address.sun_family = sa_family_t(AF_UNIX)
        try #require(path.utf8.count < MemoryLayout.size(ofValue: address.sun_path))
        withUnsafeMutableBytes(of: &address.sun_path) { $0.copyBytes(from: path.utf8) }
        let size = socklen_t(MemoryLayout<sockaddr_un>.size)
        let bound = withUnsafePointer(to: &address) {
            $0.withMemoryRebound(to: sockaddr.self, capacity: 1) { bind(number, $0, size) }
        }
        try #require(bound == 0 && listen(number, 4) == 0)
    }

    func close() { _ = Glibc.close(number) }
}

extension JSONValue {
    /// The member of an object; nil for anything else, and for null.
    subscript(key: String) -> JSONValue? {
        guard case .object(let pairs) = self, let pair = pairs.first(where: { $0.key == key }) else {
            return nil
        }
        return pair.value == .null ? nil : pair.value
    }
    var count: UInt64? { if case .unsigned(let number) = self { number } else { nil } }
    var number: Double? { if case .decimal(let number) = self { number } else { nil } }
    var string: String? { if case .string(let string) = self { string } else { nil } }
    var elements: [JSONValue]? { if case .array(let values) = self { values } else { nil } }
}
