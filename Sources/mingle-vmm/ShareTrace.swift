import GuestMemory
import LinuxHost
import Sharing
import Synchronization

/// `--trace-share`: a line for each event of a page.
final class ShareTrace: Sendable {
    /// A reader that takes nothing for so long is given up: nanoseconds.
    private static let patience: UInt64 = 2_000_000_000

    private let file: OutputFile
    private let name: String
    private let state = Mutex<String?>(nil)

    init(_ file: consuming OutputFile, guest: String) throws(OutputFileError) {
        try file.clear()
        self.file = file
        name = guest
    }

    /// Why it is not all there; nil while it is.
    var problem: String? { state.withLock { $0 } }

    /// On the sharing thread, outside windows.
    func write(_ events: [ShareEvent]) {
        guard problem == nil else { return }
        let now = monotonicNanoseconds()
        var text = ""
        for event in events { text += "\(now) \(event)\n" }
        var rest = Array(text.utf8)[...]
        var deadline = now + Self.patience
        while !rest.isEmpty {
            switch file.write(rest) {
            case .bytes(0): return fail("it takes no bytes")
            case .bytes(let count):
                rest = rest.dropFirst(count)
                deadline = monotonicNanoseconds() + Self.patience
            case .failed(let code): return fail(LinuxError.message(code))
            case .full:
                guard monotonicNanoseconds() < deadline else { return fail("its reader takes nothing") }
                _ = PollList.isReady(file.descriptor.number, .output, until: deadline)
            }
        }
    }

    private func fail(_ reason: String) {
        let text = "the trace ends early: \(file.path) cannot be written (\(reason))"
        state.withLock { $0 = text }
        HostIO.tell("mingle: error: \(name): \(text)\n")
    }
}
