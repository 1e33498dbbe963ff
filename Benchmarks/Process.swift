import LinuxHost
import CLinux
import FoundationEssentials
import Glibc

/// What went wrong, for a person.
struct Failure: Error, CustomStringConvertible {
    let description: String
    init(_ description: String) { self.description = description }
}

/// Nanoseconds of the clock that the VMM's report uses too.
func monotonicNow() -> UInt64 {
    var time = timespec()
    clock_gettime(CLOCK_MONOTONIC, &time)
    return UInt64(time.tv_sec) * 1_000_000_000 + UInt64(time.tv_nsec)
}

/// A signal that asks us to end.
struct Interrupted: Error {
    let signal: Int32

    private nonisolated(unsafe) static var isWatched = false
    private static var signals: sigset_t {
        var set = sigset_t()
        sigemptyset(&set)
        for signal in [SIGINT, SIGTERM, SIGHUP] { sigaddset(&set, signal) }
        return set
    }

    /// From now on signals are noticed where a process is waited for, and thrown, so that all is put away.
    static func watch() {
        var set = signals
        isWatched = pthread_sigmask(SIG_BLOCK, &set, nil) == 0
    }

    static func check() throws {
        guard isWatched else { return }
        var set = signals
        var now = timespec()
        let signal = sigtimedwait(&set, nil, &now)
        if signal > 0 { throw Interrupted(signal: signal) }
    }
}

/// A process whose standard output we read; ended when its owner goes.
final class MeasuredProcess {
    let identifier: pid_t
    /// Just before it was made.
    let spawned: UInt64
    private let reader: Int32
    private(set) var output = ""
    private(set) var status: Int32?

    /// - Parameters:
    ///   - errors: a file for its standard error; nil: ours.
    ///   - together: its standard error comes with its output.
    init(_ words: [String], errors: String? = nil, together: Bool = false) throws {
        var ends: [Int32] = [0, 0]
        guard pipe(&ends) == 0 else { throw Failure("no pipe") }
        for end in ends { _ = fcntl(end, F_SETFD, FD_CLOEXEC) }
        var actions = posix_spawn_file_actions_t()
        posix_spawn_file_actions_init(&actions)
        defer { posix_spawn_file_actions_destroy(&actions) }
        posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDONLY, 0)
        posix_spawn_file_actions_adddup2(&actions, ends[1], 1)
        if together { posix_spawn_file_actions_adddup2(&actions, ends[1], 2) }
        if let errors {
            posix_spawn_file_actions_addopen(&actions, 2, errors, O_WRONLY | O_CREAT | O_TRUNC, 0o600)
        }
        var attributes = posix_spawnattr_t()
        posix_spawnattr_init(&attributes)
        defer { posix_spawnattr_destroy(&attributes) }
        // What we block, it shall hear.
        var nothing = sigset_t()
        sigemptyset(&nothing)
        posix_spawnattr_setsigmask(&attributes, &nothing)
        posix_spawnattr_setflags(&attributes, Int16(POSIX_SPAWN_SETSIGMASK))
        var arguments: [UnsafeMutablePointer<CChar>?] = words.map { strdup($0) } + [nil]
        defer { arguments.forEach { free($0) } }
        var identifier: pid_t = 0
        spawned = monotonicNow()
        let result = posix_spawnp(&identifier, words[0], &actions, &attributes, &arguments, environ)
        close(ends[1])
        reader = ends[0]
        guard result == 0 else {
            close(reader)
            throw Failure("\(words[0]): \(String(cString: strerror(result)))")
        }
        self.identifier = identifier
    }

    deinit {
        if status == nil {
            // Asked first: it may have guests and settings of its own to put away.
            kill(identifier, SIGTERM)
            var isGone = false
            for _ in 0..<3000 where !isGone {
                isGone = waitpid(identifier, nil, WNOHANG) == identifier
                if !isGone { usleep(10_000) }
            }
            if !isGone {
                kill(identifier, SIGKILL)
                waitpid(identifier, nil, 0)
            }
        }
        close(reader)
    }

    /// Reads until it has said `text` or has ended.
    /// - Returns: when it had; nil if it never did.
    func wait(for text: String, within seconds: Double = 120) throws -> UInt64? {
        let deadline = monotonicNow() + UInt64(seconds * 1e9)
        while !output.contains(text) {
            guard try readMore(until: deadline) else { return nil }
        }
        return monotonicNow()
    }

    /// Reads until it has ended.
    /// - Returns: its exit status, 128 and the signal's number after a signal.
    @discardableResult
    func end(within seconds: Double = 120) throws -> Int32 {
        let deadline = monotonicNow() + UInt64(seconds * 1e9)
        while try readMore(until: deadline) {}
        var word: Int32 = 0
        guard waitpid(identifier, &word, 0) == identifier else { throw Failure("waitpid failed") }
        let found = word & 0x7f == 0 ? word >> 8 & 0xff : 128 + (word & 0x7f)
        status = found
        return found
    }

    func signal(_ number: Int32) { kill(identifier, number) }

    /// False at the end of the output.
    private func readMore(until deadline: UInt64) throws -> Bool {
        let now = monotonicNow()
        guard now < deadline else { throw Failure("process \(identifier) took too long; it said: \(output)") }
        var request = pollfd(fd: reader, events: Int16(POLLIN), revents: 0)
        try Interrupted.check()
        guard poll(&request, 1, Int32(clamping: min(200, (deadline - now) / 1_000_000 + 1))) > 0 else {
            return true
        }
        var buffer = [UInt8](repeating: 0, count: 65536)
        let count = read(reader, &buffer, buffer.count)
        guard count > 0 else { return false }
        output += String(decoding: buffer[..<count], as: UTF8.self)
        return true
    }
}

/// A program's output, when all went well.
func outputOf(_ words: [String]) throws -> String {
    let process = try MeasuredProcess(words)
    let status = try process.end()
    guard status == 0 else { throw Failure("\(words.joined(separator: " ")): status \(status)") }
    return process.output.trimmed
}

extension String {
    var trimmed: String {
        var text = self[...]
        while let last = text.last, last.isWhitespace { text.removeLast() }
        return String(text)
    }
}
