internal import CLinux
internal import Glibc

/// Owns a file descriptor and closes it when it goes. Every descriptor of a VMM is close-on-exec (O_CLOEXEC).
public struct OwnedDescriptor: ~Copyable, Sendable {
    /// The number, for calls; valid as long as this owner lives.
    public let number: Int32

    /// Takes over a descriptor that somebody opened.
    public init(adopting number: Int32) { self.number = number }

    /// Gives the descriptor up without closing it, so that it lives as long as the process.
    public consuming func release() -> Int32 {
        let number = number
        discard self
        return number
    }

    /// Opens a file close-on-exec.
    public static func open(_ path: String, flags: Int32, mode: UInt32 = 0o600) throws(LinuxError)
        -> OwnedDescriptor
    {
        // SAFETY: the path is a NUL-terminated copy for the time of the call.
        OwnedDescriptor(adopting: try checked(unsafe mingle_open(path, flags, mode), "open", path))
    }

    /// An anonymous memory file (memfd_create(2)), empty, close-on-exec, with sealing allowed.
    public static func memoryFile(named name: String) throws(LinuxError) -> OwnedDescriptor {
        let flags = UInt32(MFD_CLOEXEC) | UInt32(MFD_ALLOW_SEALING)
        // SAFETY: the name is a NUL-terminated copy for the time of the call.
        return OwnedDescriptor(
            adopting: try checked(unsafe mingle_memfd_create(name, flags), "memfd_create", name))
    }

    /// A counter that poll(2) can wait for (eventfd(2)), non-blocking.
    public static func event() throws(LinuxError) -> OwnedDescriptor {
        let fd = eventfd(0, Int32(EFD_CLOEXEC) | Int32(EFD_NONBLOCK))
        guard fd >= 0 else { throw .current("eventfd") }
        return OwnedDescriptor(adopting: fd)
    }

    /// Adds one to an eventfd. Cannot block: the counter saturates.
    public func signalEvent() { Self.signalEvent(number) }

    /// As ``signalEvent()``, of a descriptor that somebody keeps open meanwhile.
    public static func signalEvent(_ number: Int32) {
        var one: UInt64 = 1
        // SAFETY: eight bytes of a live local. A full counter already wakes every waiter, so the result says nothing.
        _ = unsafe write(number, &one, 8)
    }

    /// Resets an eventfd to zero.
    public func drainEvent() { Self.drainEvent(number) }

    /// As ``drainEvent()``, of a descriptor that somebody keeps open meanwhile.
    public static func drainEvent(_ number: Int32) {
        var count: UInt64 = 0
        // SAFETY: eight bytes of a live local.
        _ = unsafe Glibc.read(number, &count, 8)
    }

    /// Size in bytes of the file behind it.
    public func fileSize() throws(LinuxError) -> UInt64 { UInt64(max(0, try status().st_size)) }

    /// Whether it is a file with bytes at offsets: no directory, FIFO, socket or device.
    public func isRegularFile() throws(LinuxError) -> Bool { try status().st_mode & S_IFMT == S_IFREG }

    private func status() throws(LinuxError) -> stat {
        var status = stat()
        // SAFETY: fstat fills a live local.
        guard unsafe mingle_fstat(number, &status) == 0 else { throw .current("fstat") }
        return status
    }

    /// Bytes of memory or disk that the file takes; 0 when unknown.
    public func allocatedBytes() -> UInt64 {
        var status = stat()
        // SAFETY: fstat fills a live local.
        guard unsafe mingle_fstat(number, &status) == 0 else { return 0 }
        return UInt64(max(0, status.st_blocks)) * 512
    }

    /// Sets the size in bytes (ftruncate(2)).
    public func truncate(to size: UInt64) throws(LinuxError) {
        guard size <= UInt64(Int64.max) else { throw LinuxError(operation: "ftruncate", code: EFBIG) }
        guard ftruncate(number, Int(size)) == 0 else { throw .current("ftruncate", "\(size) bytes") }
    }

    /// Reads up to `count` bytes at `offset`; shorter only at the end of the file.
    public func read(count: Int, at offset: UInt64) throws(LinuxError) -> [UInt8] {
        try Self.readBytes(of: number, count: count, at: offset)
    }

    /// As ``read(count:at:)``, of a descriptor that somebody keeps open meanwhile.
    public static func readBytes(of number: Int32, count: Int, at offset: UInt64) throws(LinuxError)
        -> [UInt8]
    {
        guard count >= 0, offset <= UInt64(Int64.max) - UInt64(count) else {
            throw LinuxError(operation: "pread", code: EINVAL)
        }
        var bytes = [UInt8](repeating: 0, count: count)
        let done = try readBytes(of: number, into: &bytes, at: offset)
        bytes.removeLast(count - done)
        return bytes
    }

    /// As ``readBytes(of:count:at:)``, into an array that is there already.
    /// - Returns: how many bytes were read: fewer than the array holds only at the end of the file.
    public static func readBytes(of number: Int32, into bytes: inout [UInt8], at offset: UInt64)
        throws(LinuxError) -> Int
    {
        guard offset <= UInt64(Int64.max) - UInt64(bytes.count) else {
            throw LinuxError(operation: "pread", code: EINVAL)
        }
        var done = 0
        while done < bytes.count {
            let got = unsafe bytes.withUnsafeMutableBytes { buffer in
                // SAFETY: `done` < count = the buffer's size, so the rest of it is ours to fill.
                unsafe pread(number, buffer.baseAddress! + done, buffer.count - done, Int(offset) + done)
            }
            if got < 0, errno == EINTR { continue }
            guard got >= 0 else { throw .current("pread") }
            if got == 0 { break }
            done += got
        }
        return done
    }

    deinit { _ = close(number) }
}
