import Foundation
import LinuxHost
import TestSupport
import VMMProtocol

/// A Linux guest that shares its memory, with a shell that takes lines from the test.
final class ShellGuest {
    let name: String
    let mingle: Mingle
    let control: ControlSocket
    private let input: PipeEnds
    private var asked = 0
    private var seen = 0

    /// Starts a guest, and waits until its shell answers.
    init(_ name: String, domain: String, window: String, runtime: TemporaryDirectory) throws {
        var pipe = try PipeEnds()
        self.name = name
        mingle = try Mingle(
            [
                "run", "--name", name, "--memory", "128M", "--sharing", "builtin", "--domain", domain,
                "--window", window, "--share-cpu", "100%", "--timeout", Mingle.leash, "--grace", "600",
            ], input: .descriptor(pipe.reading), runtime: runtime)
        pipe.closeReading()
        input = pipe
        control = try ControlSocket("\(runtime.path)/mingle/control/\(name)")
        try run("true")
    }

    /// Has the guest's shell run a line.
    /// - Returns: what it printed, without messages of the kernel.
    @discardableResult
    func run(_ line: String) throws -> String {
        asked += 1
        // The mark is put together by the shell, so that no message of it can look like the mark.
        let mark = "\nmark=\(asked)=\n"
        let bytes = Array("\(line)\necho; echo mark=$((\(asked)))=\n".utf8)
        guard write(input.writing, bytes, bytes.count) == bytes.count else {
            throw Failure("\(name) takes no input")
        }
        var fresh = ""
        let said = eventually(within: Mingle.patience) {
            fresh = String(decoding: mingle.folder.bytes("output").dropFirst(seen), as: UTF8.self)
            return fresh.contains(mark) || mingle.child.finish() != nil
        }
        guard said, let end = fresh.range(of: mark) else {
            throw Failure("\(name) did not answer '\(line)'. \(mingle.diagnosis)\n\(HostState.description)")
        }
        seen += fresh[..<end.upperBound].utf8.count
        return fresh[..<end.lowerBound].split(separator: "\n").filter { !$0.hasPrefix("[") }
            .joined(separator: "\n")
    }

    /// What sharing says of itself.
    func sharing() throws -> SharingFigures {
        guard let sharing = try control.stats().sharing else { throw Failure("\(name) does not share") }
        if let failure = sharing.failure {
            throw Failure("\(name): sharing failed: \(failure)")
        }
        return sharing
    }

    func count(_ figure: KeyPath<SharingFigures, UInt64>) throws -> Int {
        Int(clamping: try sharing()[keyPath: figure])
    }

    /// Waits for what its sharing must come to.
    func wait(_ what: String, _ condition: () throws -> Bool) throws {
        if try eventually(within: Mingle.patience, condition) { return }
        throw Failure(
            "\(name), not yet: \(what): \(try sharing())\n\(mingle.diagnosis)\n\(HostState.description)")
    }

    /// Waits until at least so many pages are mapped to frames.
    func waitUntilMerged(_ pages: Int) throws {
        try wait("it shares \(pages) pages") { try count(\.pagesMapped) >= pages }
    }

    /// Turns sharing off, and waits until every page is the guest's own again.
    func bringHome() throws {
        try control.ask("sharing off")
        try wait("every page is home") { try sharing().isHome }
    }

    /// Presses the power button.
    /// - Returns: what it said and how it ended.
    func powerOff() throws -> Mingle.Result {
        mingle.child.kill(SIGTERM)
        return try mingle.wait()
    }
}

/// Memory that the host has given to anybody and cannot take back: shared memory and anonymous pages, in bytes.
func hostMemoryInUse() throws -> Int {
    let found = SmallFile.table(SystemCall.text(of: "/proc/meminfo") ?? "")
    guard let shared = found["Shmem"], let anonymous = found["AnonPages"] else {
        throw Failure("/proc/meminfo lacks Shmem or AnonPages")
    }
    return Int(shared + anonymous) << 10
}
