import Foundation
import LinuxHost
import Synchronization

/// What went wrong in a test's own machinery.
public struct Failure: Error, CustomStringConvertible {
    public let description: String
    public init(_ description: String) { self.description = description }
}

/// A process of ours: killed and reaped when its owner goes, however the test ends.
public final class ChildProcess: Sendable {
    public let identifier: pid_t
    private let status = Mutex<Int32?>(nil)

    /// - Parameters:
    ///   - environment: beside, and instead of, our variables.
    ///   - streams: standard input, output and errors.
    ///   - ownSession: the child leads a session; the first terminal that it opens controls it.
    package init(
        _ path: String, _ arguments: [String], environment: [String: String] = [:],
        streams: [ChildProgram.Stream] = [.nothing, .nothing, .nothing], ownSession: Bool = false
    ) throws {
        var program = ChildProgram(path, arguments)
        program.environment =
            ProcessInfo.processInfo.environment.merging(environment) { $1 }.map { "\($0)=\($1)" }
        program.streams = streams
        program.leads = ownSession ? .session : .nothing
        identifier = try program.start()
    }

    /// A program that is given nothing else.
    package init(_ program: ChildProgram) throws { identifier = try program.start() }

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
            switch HostProcess.collect(identifier, wait: blocking) {
            case .exited(let code): status = code
            case .killed(let signal): status = -signal
            case nil: return nil
            }
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

extension ChildProcess {
    /// How a program ended, and what it said.
    package struct Outcome: Sendable {
        package let process: pid_t
        /// As ``finish(blocking:)`` has it.
        package let status: Int32
        package let output: String
        package let errors: String
    }

    /// Runs a program to its end, with standard streams of ours. What it says must fit into a pipe: 64 KiB.
    package static func run(_ program: ChildProgram) throws -> Outcome {
        var output = try PipeEnds()
        var errors = try PipeEnds()
        var program = program
        program.streams = [.nothing, .descriptor(output.writing), .descriptor(errors.writing)]
        let child = try ChildProcess(program)
        output.closeWriting()
        errors.closeWriting()
        let status = try child.wait()
        return Outcome(
            process: child.identifier, status: status, output: text(output.reading),
            errors: text(errors.reading))
    }

    private static func text(_ number: Int32) -> String {
        let file = FileHandle(fileDescriptor: number, closeOnDealloc: false)
        return String(decoding: file.readDataToEndOfFile(), as: UTF8.self)
    }
}
