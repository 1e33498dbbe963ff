import Foundation
import GuestMemory
import Synchronization

/// A process of ours: killed and reaped when its owner goes, however the test ends.
final class ChildProcess: Sendable {
    enum Stream {
        /// A descriptor of ours.
        case descriptor(Int32)
        /// A file, opened by the child with these flags.
        case file(String, Int32)
    }

    let identifier: pid_t
    private let status = Mutex<Int32?>(nil)

    /// - Parameter ownSession: the child leads a session; the first terminal that it opens controls it.
    init(_ path: String, _ arguments: [String], streams: [Stream], ownSession: Bool = false) throws {
        var actions = posix_spawn_file_actions_t()
        var attributes = posix_spawnattr_t()
        posix_spawn_file_actions_init(&actions)
        posix_spawnattr_init(&attributes)
        defer {
            posix_spawn_file_actions_destroy(&actions)
            posix_spawnattr_destroy(&attributes)
        }
        for (number, stream) in streams.enumerated() {
            switch stream {
            case .descriptor(let descriptor):
                posix_spawn_file_actions_adddup2(&actions, descriptor, Int32(number))
            case .file(let path, let flags):
                posix_spawn_file_actions_addopen(&actions, Int32(number), path, flags, 0o600)
            }
        }
        var all = sigset_t()
        var none = sigset_t()
        sigfillset(&all)
        sigemptyset(&none)
        posix_spawnattr_setsigdefault(&attributes, &all)
        posix_spawnattr_setsigmask(&attributes, &none)
        // POSIX_SPAWN_SETSID (spawn.h, a GNU extension)
        let session: Int32 = ownSession ? 0x80 : 0
        posix_spawnattr_setflags(
            &attributes, Int16(Int32(POSIX_SPAWN_SETSIGDEF) | Int32(POSIX_SPAWN_SETSIGMASK) | session))
        var words: [UnsafeMutablePointer<CChar>?] = ([path] + arguments).map { strdup($0) }
        defer { words.forEach { free($0) } }
        words.append(nil)
        var identifier: pid_t = 0
        let result = posix_spawn(&identifier, path, &actions, &attributes, words, environ)
        guard result == 0 else { throw Failure("posix_spawn \(path): \(LinuxError.message(result))") }
        self.identifier = identifier
    }

    deinit {
        kill(SIGKILL)
        _ = finish(blocking: true)
    }

    /// Sends a signal, unless it has been reaped.
    func kill(_ signal: Int32) {
        status.withLock { status in
            if status == nil { _ = Glibc.kill(identifier, signal) }
        }
    }

    /// The exit status, or minus the signal that killed it; nil while it runs.
    func finish(blocking: Bool = false) -> Int32? {
        status.withLock { status in
            if let status { return status }
            var word: Int32 = 0
            var result: pid_t
            repeat {
                result = waitpid(identifier, &word, blocking ? 0 : WNOHANG)
            } while result < 0 && errno == EINTR
            guard result == identifier else { return nil }
            status = word & 0x7f == 0 ? word >> 8 & 0xff : -(word & 0x7f)
            return status
        }
    }

    /// Waits for its end; kills it when that does not come.
    func wait(within seconds: Double = 60) throws -> Int32 {
        var result: Int32?
        _ = eventually(within: seconds) {
            result = finish()
            return result != nil
        }
        if let result { return result }
        kill(SIGKILL)
        _ = finish(blocking: true)
        throw Failure("process \(identifier) did not end within \(seconds) s")
    }
}

/// A pipe of the smallest capacity (4096 bytes), made of a FIFO: both ends are close-on-exec from the start.
final class SmallPipe {
    static let capacity = 4096
    private(set) var reader: Int32
    private(set) var writer: Int32

    init(_ folder: TemporaryFolder) throws {
        let path = folder.file("pipe-\(UUID().uuidString)")
        guard mkfifo(path, 0o600) == 0 else { throw LinuxError.current("mkfifo") }
        defer { unlink(path) }
        reader = open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC)
        writer = open(path, O_WRONLY | O_CLOEXEC)
        guard reader >= 0, writer >= 0 else { throw LinuxError.current("open", path) }
        _ = fcntl(reader, F_SETFL, 0)
        // F_SETPIPE_SZ (linux/fcntl.h)
        _ = fcntl(reader, 1031, Int32(Self.capacity))
    }

    deinit {
        closeReader()
        closeWriter()
    }

    func closeReader() {
        if reader >= 0 { close(reader) }
        reader = -1
    }
    func closeWriter() {
        if writer >= 0 { close(writer) }
        writer = -1
    }

    func write(_ text: String) {
        _ = Array(text.utf8).withUnsafeBytes { Glibc.write(writer, $0.baseAddress, $0.count) }
    }

    /// Everything until the end of the file; whoever writes must come to an end by itself.
    func readAll() -> [UInt8] {
        var all: [UInt8] = []
        var buffer = [UInt8](repeating: 0, count: 65536)
        while true {
            let count = Glibc.read(reader, &buffer, buffer.count)
            if count < 0, errno == EINTR { continue }
            if count <= 0 { return all }
            all += buffer[..<count]
        }
    }
}
