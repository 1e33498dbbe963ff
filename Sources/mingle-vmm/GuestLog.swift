import Glibc
import GuestMemory
import LinuxHost

/// The file that `--serial file:` names. What cannot be written is lost, whole lines of it, and counted; the guest goes on.
/// When it can be written again, a line in it says how much is missing.
///
/// ```
///  writing --a write fails--> failing --a line begins and the notice can be written--> writing
/// ```
struct GuestLog: ~Copyable {
    /// Between two attempts, nanoseconds.
    private static let interval: UInt64 = 200_000_000

    private let file: OutputFile
    private let name: String
    private var problem: Int32?
    private var nextTry: UInt64 = 0
    /// What is left of the notice that has to come first.
    private var notice: ArraySlice<UInt8> = []
    private var wasSaid = false
    /// Whether the last byte that the guest wrote, or that was lost, ended a line.
    private var isAtLineStart = true
    /// Lost, and no notice in the file says so yet.
    private var untold: UInt64 = 0
    private(set) var lostBytes: UInt64 = 0

    init(_ file: consuming OutputFile, guest: String) throws(OutputFileError) {
        try file.clear()
        self.file = file
        name = guest
    }

    var number: Int32 { file.descriptor.number }

    /// Takes what the guest said; what is left has to wait for a reader.
    mutating func write(_ bytes: ArraySlice<UInt8>) -> ArraySlice<UInt8> {
        var bytes = bytes
        if problem != nil {
            if !isAtLineStart {
                let end = bytes.firstIndex(of: UInt8(ascii: "\n")).map { $0 + 1 } ?? bytes.endIndex
                lose(bytes[..<end])
                bytes = bytes[end...]
            }
            if bytes.isEmpty { return [] }
            guard isAtLineStart, recover() else {
                lose(bytes)
                return []
            }
        }
        switch file.write(bytes) {
        case .full: return bytes
        case .bytes(let count):
            let end = bytes.startIndex + count
            if count > 0 { isAtLineStart = bytes[end - 1] == UInt8(ascii: "\n") }
            return bytes[end...]
        case .failed(let code):
            fail(code)
            lose(bytes)
            return []
        }
    }

    /// A last attempt to say in the file what is missing, and a word about it on standard error.
    mutating func finish() {
        if problem != nil {
            nextTry = 0
            _ = recover()
        }
        guard lostBytes > 0 else { return }
        HostIO.tell(
            "mingle: warning: \(name): \(lostBytes) bytes of its output are missing in \(file.path)\n")
    }

    /// Gives up what was not written.
    mutating func lose(_ bytes: ArraySlice<UInt8>) {
        guard let last = bytes.last else { return }
        isAtLineStart = last == UInt8(ascii: "\n")
        lostBytes += UInt64(bytes.count)
        untold += UInt64(bytes.count)
    }

    private mutating func fail(_ code: Int32) {
        problem = code
        nextTry = monotonicNanoseconds() + Self.interval
        guard !wasSaid else { return }
        wasSaid = true
        let reason = code == EPIPE ? "nobody reads it" : LinuxError.message(code)
        HostIO.tell(
            "mingle: warning: \(name): \(file.path) cannot be written (\(reason)): lines are lost until it can\n"
        )
    }

    /// - Returns: whether the guest's bytes can follow.
    private mutating func recover() -> Bool {
        let now = monotonicNanoseconds()
        guard let problem, now >= nextTry else { return problem == nil }
        nextTry = now + Self.interval
        while !notice.isEmpty || untold > 0 {
            if notice.isEmpty {
                // The line that was broken off ends first.
                notice =
                    Array(
                        "\n[mingle: \(untold) bytes are missing here: \(LinuxError.message(problem))]\n".utf8)[
                        ...]
                untold = 0
            }
            guard case .bytes(let count) = file.write(notice), count > 0 else { return false }
            notice = notice.dropFirst(count)
        }
        self.problem = nil
        return true
    }
}
