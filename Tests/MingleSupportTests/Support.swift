import Foundation
import Glibc
import TestSupport
import Testing
@testable import LinuxHost

@testable import MingleSupport
import VMMProtocol

/// A directory that goes away with its last user.
final class TemporaryDirectory {
    let path: String

    init() throws {
        var template = Array("/tmp/mingle-support-XXXXXX".utf8CString)
        let made = template.withUnsafeMutableBufferPointer { mkdtemp($0.baseAddress!) }
        path = String(cString: try #require(made))
    }

    deinit { try? FileManager.default.removeItem(atPath: path) }

    /// A prepared state directory in it.
    func state() throws -> StateDirectory {
        let state = StateDirectory(path: path + "/mingle")
        try state.prepare()
        return state
    }

    /// Writes a file below the directory, with the directories above it.
    @discardableResult
    func write(_ name: String, _ bytes: [UInt8]) throws -> String {
        let file = path + "/" + name
        for index in file.indices where file[index] == "/" && index != file.startIndex {
            mkdir(String(file[..<index]), 0o700)
        }
        let descriptor = open(file, O_WRONLY | O_CREAT | O_TRUNC, 0o600)
        try #require(descriptor >= 0)
        defer { close(descriptor) }
        try #require(Glibc.write(descriptor, bytes, bytes.count) == bytes.count)
        return file
    }

    @discardableResult
    func write(_ name: String, _ text: String) throws -> String { try write(name, Array(text.utf8)) }
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

/// A child process that waits to be killed.
final class Child {
    let process: pid_t

    /// Runs a shell script.
    init(_ script: String) throws {
        var process: pid_t = 0
        let words: [UnsafeMutablePointer<CChar>?] = [strdup("sh"), strdup("-c"), strdup(script), nil]
        defer { words.forEach { free($0) } }
        // The threads that run tests block signals, which a child inherits unless told otherwise.
        var attributes = posix_spawnattr_t()
        var none = sigset_t()
        sigemptyset(&none)
        posix_spawnattr_init(&attributes)
        defer { posix_spawnattr_destroy(&attributes) }
        posix_spawnattr_setsigmask(&attributes, &none)
        posix_spawnattr_setflags(&attributes, Int16(POSIX_SPAWN_SETSIGMASK))
        let result = posix_spawn(&process, "/bin/sh", nil, &attributes, words, environ)
        try #require(result == 0)
        self.process = process
    }

    deinit {
        kill(process, SIGKILL)
        waitpid(process, nil, 0)
    }
}

/// A process that holds the lock of its record, as a VMM does.
func child(holding path: String, _ script: String = "exec sleep 100") throws -> Child {
    let child = try Child("exec flock -F -x '\(path)' sh -c \"\(script)\"")
    try #require(
        eventually {
            (try? SystemCall.linkStatus(path).get()).flatMap { LockHolder.process(of: $0) } == child.process
        }, "it has the lock")
    try SystemCall.overwrite(path, with: record(process: child.process).text).get()
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
