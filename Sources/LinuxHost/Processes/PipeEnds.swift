internal import CLinux
internal import Glibc

/// A pipe (pipe2(2)), close-on-exec; one end can be closed before the other.
package struct PipeEnds: ~Copyable {
    private var input: OwnedDescriptor?
    private var output: OwnedDescriptor?

    package init() throws(LinuxError) {
        var ends: [Int32] = [-1, -1]
        // SAFETY: an array of two, alive for the call.
        try checked(unsafe mingle_pipe(&ends), "pipe")
        input = OwnedDescriptor(adopting: ends[0])
        output = OwnedDescriptor(adopting: ends[1])
    }

    /// The number of the end that is read; -1 when it is closed.
    package var reading: Int32 { Self.number(input) }
    /// The number of the end that is written; -1 when it is closed.
    package var writing: Int32 { Self.number(output) }

    private static func number(_ end: borrowing OwnedDescriptor?) -> Int32 {
        switch end {
        case .some(let end): end.number
        case .none: -1
        }
    }

    package mutating func closeReading() { input = nil }
    package mutating func closeWriting() { output = nil }
}

/// What a child says on its standard error, for its parent.
package struct ErrorPipe: ~Copyable {
    private var pipe: PipeEnds

    package init() throws(LinuxError) { pipe = try PipeEnds() }

    /// For ``HostProcess``'s spawn.
    package var childEnd: Int32 { pipe.writing }

    /// Reads until every child that has the other end let go of it, or the time is over.
    package mutating func readAll(milliseconds: Int) -> String {
        pipe.closeWriting()
        let deadline = monotonicNanoseconds() + UInt64(milliseconds) * 1_000_000
        var bytes: [UInt8] = []
        var buffer = [UInt8](repeating: 0, count: 1024)
        while bytes.count < 4096 {
            let now = monotonicNanoseconds()
            guard now < deadline else { break }
            let ready = PollList.events(
                of: pipe.reading, Int16(POLLIN),
                milliseconds: Int32(clamping: (deadline - now) / 1_000_000 + 1))
            guard ready != 0 else { continue }
            // SAFETY: the buffer is as long as said.
            let count = unsafe read(pipe.reading, &buffer, buffer.count)
            if count < 0, errno == EINTR { continue }
            guard count > 0 else { break }
            bytes += buffer[..<count]
        }
        return String(decoding: bytes, as: UTF8.self).split(separator: "\n").joined(separator: "; ")
    }
}
