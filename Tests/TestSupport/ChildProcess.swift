import Foundation
import Synchronization

/// What went wrong in a test's own machinery.
public struct Failure: Error, CustomStringConvertible {
    public let description: String
    public init(_ description: String) { self.description = description }
}

/// A process of ours: killed and reaped when its owner goes, however the test ends.
public final class ChildProcess: Sendable {
    public enum Stream: Sendable {
        /// A descriptor of ours.
        case descriptor(Int32)
        /// A file, opened by the child.
        case file(String, Int32)

        public static let nothing = file("/dev/null", O_RDWR)
        public static func into(_ path: String) -> Stream { file(path, O_WRONLY | O_CREAT | O_TRUNC) }
    }

    public let identifier: pid_t
    private let status = Mutex<Int32?>(nil)

    /// - Parameters:
    ///   - streams: standard input, output and errors.
    ///   - ownSession: the child leads a session; the first terminal that it opens controls it.
    public init(
        _ path: String, _ arguments: [String], environment: [String: String] = [:], streams: [Stream],
        ownSession: Bool = false
    ) throws {
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
            case .file(let file, let flags):
                posix_spawn_file_actions_addopen(&actions, Int32(number), file, flags, 0o600)
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
        let variables = ProcessInfo.processInfo.environment.merging(environment) { $1 }.map { "\($0)=\($1)" }
        var words: [UnsafeMutablePointer<CChar>?] = ([path] + arguments).map { strdup($0) } + [nil]
        var settings: [UnsafeMutablePointer<CChar>?] = variables.map { strdup($0) } + [nil]
        defer { (words + settings).forEach { free($0) } }
        var identifier: pid_t = 0
        let result = posix_spawn(&identifier, path, &actions, &attributes, &words, &settings)
        guard result == 0 else { throw Failure("posix_spawn \(path): \(String(cString: strerror(result)))") }
        self.identifier = identifier
    }

    deinit {
        kill(SIGKILL)
        _ = finish(blocking: true)
    }

    /// Sends a signal, unless it has been reaped.
    public func kill(_ signal: Int32) {
        status.withLock { status in
            if status == nil { _ = Glibc.kill(identifier, signal) }
        }
    }

    /// The exit status, or minus the signal that killed it; nil while it runs.
    public func finish(blocking: Bool = false) -> Int32? {
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
    /// - Parameters:
    ///   - seconds: of ``Pace``.
    ///   - describe: asked, before it is killed, what it is at.
    public func wait(within seconds: Double = 160, _ describe: () -> String = { "" }) throws -> Int32 {
        if eventually(within: seconds, { finish() != nil }), let status = finish() { return status }
        let what =
            "process \(identifier) did not end within \(seconds) s. \(describe())\n\(HostState.description)"
        kill(SIGKILL)
        _ = finish(blocking: true)
        throw Failure(what)
    }
}
