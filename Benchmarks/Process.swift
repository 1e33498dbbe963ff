import LinuxHost
import CLinux
import FoundationEssentials
import Glibc

/// What went wrong, for a person.
struct Failure: Error, CustomStringConvertible {
    let description: String
    init(_ description: String) { self.description = description }
}

/// A signal that asks us to end.
struct Interrupted: Error {
    let signal: Int32

    private nonisolated(unsafe) static var isWatched = false
    private static let signals = [SIGINT, SIGTERM, SIGHUP]

    /// From now on signals are noticed where a process is waited for, and thrown, so that all is put away.
    static func watch() {
        HostProcess.block(signals)
        isWatched = true
    }

    static func check() throws {
        guard isWatched, let signal = HostProcess.nextSignal(signals, milliseconds: 0) else { return }
        throw Interrupted(signal: signal)
    }
}

/// A process whose standard output we read; ended when its owner goes.
final class MeasuredProcess {
    let identifier: pid_t
    /// Just before it was made.
    let spawned: UInt64
    private let pipe: PipeEnds
    private(set) var output = ""
    private(set) var status: Int32?

    /// - Parameters:
    ///   - errors: a file for its standard error; nil: ours.
    ///   - together: its standard error comes with its output.
    init(_ words: [String], errors: String? = nil, together: Bool = false) throws {
        var pipe = try PipeEnds()
        var program = ChildProgram(words[0], Array(words.dropFirst()))
        program.searchesPath = true
        program.environment = nil
        program.keepsIgnoredSignals = true
        let output = ChildProgram.Stream.descriptor(pipe.writing)
        let other = together ? output : errors.map { .into($0) } ?? .descriptor(2)
        program.streams = [.nothing, output, other]
        spawned = monotonicNanoseconds()
        identifier = try program.start()
        pipe.closeWriting()
        self.pipe = pipe
    }

    deinit {
        if status == nil {
            // Asked first: it may have guests and settings of its own to put away.
            kill(identifier, SIGTERM)
            var isGone = false
            for _ in 0..<3000 where !isGone {
                isGone = HostProcess.collect(identifier, wait: false) != nil
                if !isGone { usleep(10_000) }
            }
            if !isGone {
                kill(identifier, SIGKILL)
                _ = HostProcess.collect(identifier, wait: true)
            }
        }
    }

    /// Reads until it has said `text` or has ended.
    /// - Returns: when it had; nil if it never did.
    func wait(for text: String, within seconds: Double = 120) throws -> UInt64? {
        let deadline = monotonicNanoseconds() + UInt64(seconds * 1e9)
        while !output.contains(text) {
            guard try readMore(until: deadline) else { return nil }
        }
        return monotonicNanoseconds()
    }

    /// Reads until it has ended.
    /// - Returns: its exit status, 128 and the signal's number after a signal.
    @discardableResult
    func end(within seconds: Double = 120) throws -> Int32 {
        let deadline = monotonicNanoseconds() + UInt64(seconds * 1e9)
        while try readMore(until: deadline) {}
        let found: Int32
        switch HostProcess.collect(identifier, wait: true) {
        case .exited(let code): found = code
        case .killed(let signal): found = 128 + signal
        case nil: throw Failure("process \(identifier) cannot be waited for")
        }
        status = found
        return found
    }

    func signal(_ number: Int32) { kill(identifier, number) }

    /// False at the end of the output.
    private func readMore(until deadline: UInt64) throws -> Bool {
        let now = monotonicNanoseconds()
        guard now < deadline else { throw Failure("process \(identifier) took too long; it said: \(output)") }
        try Interrupted.check()
        let patience = Int32(clamping: min(200, (deadline - now) / 1_000_000 + 1))
        guard PollList.events(of: pipe.reading, Int16(POLLIN), milliseconds: patience) != 0 else {
            return true
        }
        var buffer = [UInt8](repeating: 0, count: 65536)
        let count = read(pipe.reading, &buffer, buffer.count)
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
