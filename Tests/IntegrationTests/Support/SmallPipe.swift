import Foundation
import GuestMemory
import LinuxHost
import TestSupport

/// A pipe of the smallest capacity (4096 bytes), made of a FIFO: both ends are close-on-exec from the start.
final class SmallPipe {
    static let capacity = 4096
    private(set) var reader: Int32
    private(set) var writer: Int32

    init(_ folder: TemporaryDirectory) throws {
        let path = folder.path("pipe-\(UUID().uuidString)")
        guard mkfifo(path, 0o600) == 0 else { throw LinuxError.current("mkfifo") }
        defer { unlink(path) }
        reader = open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC)
        writer = open(path, O_WRONLY | O_CLOEXEC)
        guard reader >= 0, writer >= 0 else { throw LinuxError.current("open", path) }
        _ = fcntl(reader, F_SETFL, 0)
        // F_SETPIPE_SZ (linux/fcntl.h)
        _ = fcntl(reader, 1031, Int32(Self.capacity))
    }

    deinit {
        closeReader()
        closeWriter()
    }

    func closeReader() {
        if reader >= 0 { close(reader) }
        reader = -1
    }
    func closeWriter() {
        if writer >= 0 { close(writer) }
        writer = -1
    }

    func write(_ text: String) {
        _ = Array(text.utf8).withUnsafeBytes { Glibc.write(writer, $0.baseAddress, $0.count) }
    }

    /// Everything until the end of the file; whoever writes must come to an end by itself.
    func readAll() -> [UInt8] {
        var all: [UInt8] = []
        var buffer = [UInt8](repeating: 0, count: 65536)
        while true {
            let count = Glibc.read(reader, &buffer, buffer.count)
            if count < 0, errno == EINTR { continue }
            if count <= 0 { return all }
            all += buffer[..<count]
        }
    }
}
