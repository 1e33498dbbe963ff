import CLinux
import Glibc

/// Where bytes go that somebody may be slow to take: written without waiting, so that the main thread always hears signals.
///
/// A standard stream is shared with other processes, who would be surprised if it did not wait any more. So a pipe or
/// terminal is opened a second time; a socket is written to with a call that does not wait. Where that is refused, poll(2) is
/// trusted, which says of a pipe that there is room for a page.
package final class OutputChannel {
    /// To poll for room.
    package let number: Int32
    private let own: OwnedDescriptor?
    private let isSocket: Bool

    /// One of the standard streams.
    package static func standard(_ number: Int32) -> OutputChannel {
        var status = stat()
        // SAFETY: a live local.
        guard unsafe fstat(number, &status) == 0 else { return OutputChannel(number, nil, isSocket: false) }
        let kind = status.st_mode & S_IFMT
        // /dev/ptmx (5, 2) would be a new terminal each time.
        let isTerminal = isatty(number) == 1 && status.st_rdev != 5 << 8 | 2
        guard kind == S_IFIFO || isTerminal,
            let again = try? OwnedDescriptor.open(
                "/proc/self/fd/\(number)", flags: O_WRONLY | O_NONBLOCK | O_NOCTTY)
        else { return OutputChannel(number, nil, isSocket: kind == S_IFSOCK) }
        return OutputChannel(again.number, again, isSocket: false)
    }

    private init(_ number: Int32, _ own: consuming OwnedDescriptor?, isSocket: Bool) {
        (self.number, self.isSocket) = (number, isSocket)
        self.own = own
    }

    package func write(_ bytes: ArraySlice<UInt8>) -> WriteResult {
        guard isSocket else { return OutputFile.write(bytes, to: number) }
        while true {
            let count = unsafe bytes.withUnsafeBytes { buffer in
                // SAFETY: the buffer is alive for the call.
                unsafe send(
                    number, buffer.baseAddress, buffer.count, Int32(MSG_DONTWAIT) | Int32(MSG_NOSIGNAL))
            }
            if count >= 0 { return .bytes(count) }
            if errno == EAGAIN { return .full }
            if errno != EINTR { return .failed(errno) }
        }
    }
}
