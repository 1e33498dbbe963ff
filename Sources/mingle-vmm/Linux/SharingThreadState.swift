import FrameBroker
import GuestMemory
import Sharing

/// What only the sharing thread uses, though closures that others pass on refer to it.
///
/// Unchecked: the closures of `SharingThread` that touch it all run on that thread.
final class SharingThreadState: @unchecked Sendable {
    var mapping: LinuxGuestMapping?
    let history = SessionHistory()
}

/// `--trace-share`: a line for each event of a page.
///
/// Unchecked: as above.
final class ShareTrace: @unchecked Sendable {
    private let file: OwnedDescriptor

    init(_ path: String) throws(LinuxError) {
        file = try .open(path, flags: 0o1101, mode: 0o644)  // O_WRONLY | O_CREAT | O_TRUNC
    }

    /// On the sharing thread, outside windows.
    func write(_ events: [ShareEvent]) {
        let now = monotonicNanoseconds()
        var text = ""
        for event in events { text += "\(now) \(event)\n" }
        HostIO.writeAll(file.number, text)
    }
}
