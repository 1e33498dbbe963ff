internal import CLinux
internal import Glibc

/// Which file it is, whatever it is called.
public struct FileIdentity: Hashable, Sendable {
    let device: UInt64
    let inode: UInt64

    /// - Returns: nil when there is no regular file behind the path, links followed: only such a file can be overwritten.
    public static func of(path: String) -> FileIdentity? {
        var status = stat()
        // SAFETY: a live local; the path is a NUL-terminated copy.
        return unsafe stat(path, &status) == 0 ? FileIdentity(status) : nil
    }

    /// - Returns: nil when the descriptor is not that of a regular file.
    public static func of(descriptor: Int32) -> FileIdentity? {
        var status = stat()
        // SAFETY: a live local.
        return unsafe fstat(descriptor, &status) == 0 ? FileIdentity(status) : nil
    }

    private init?(_ status: stat) {
        guard status.st_mode & S_IFMT == S_IFREG else { return nil }
        (device, inode) = (UInt64(status.st_dev), UInt64(status.st_ino))
    }
}

/// A file that a user named for output cannot be written; the reason says what to do.
public struct OutputFileError: Error, Equatable, Sendable, CustomStringConvertible {
    public let path: String
    public let reason: String
    public init(path: String, reason: String) { (self.path, self.reason) = (path, reason) }
    init(_ path: String, _ code: Int32) {
        self.init(path: path, reason: "cannot be written: \(LinuxError.message(code))")
    }
    public var description: String { "\(path): \(reason)" }
}

/// What a write that does not wait came to.
public enum WriteResult: Equatable, Sendable {
    case bytes(Int)
    /// No room: to be tried again when poll(2) says so.
    case full
    /// errno.
    case failed(Int32)
}

/// A file, FIFO or character device that a user named for output. Opening it and writing to it never waits for anybody.
public struct OutputFile: ~Copyable, Sendable {
    public let descriptor: OwnedDescriptor
    public let path: String
    /// nil for what is no regular file.
    public let identity: FileIdentity?
    /// It was not there before.
    let isNew: Bool

    /// Opens it without changing what is in it; makes it if it is not there.
    /// - Throws: what no output can be: a directory, a block device, a socket, a FIFO that nobody reads.
    public static func open(_ path: String) throws(OutputFileError) -> OutputFile {
        _ = try kind(of: path)
        let flags = O_WRONLY | O_NONBLOCK | O_NOCTTY
        var isNew = false
        do throws(LinuxError) {
            var descriptor: OwnedDescriptor
            do throws(LinuxError) {
                descriptor = try .open(path, flags: flags)
            } catch  where error.code == ENOENT {
                descriptor = try .open(path, flags: flags | O_CREAT, mode: 0o644)
                isNew = true
            }
            let identity = FileIdentity.of(descriptor: descriptor.number)
            return OutputFile(descriptor: descriptor, path: path, identity: identity, isNew: isNew)
        } catch {
            guard error.code == ENXIO, isFIFO(path) else { throw OutputFileError(path, error.code) }
            throw OutputFileError(path: path, reason: "nobody reads it: start its reader first")
        }
    }

    private static func isFIFO(_ path: String) -> Bool {
        var status = stat()
        // SAFETY: a live local; the path is a NUL-terminated copy.
        return unsafe stat(path, &status) == 0 && status.st_mode & S_IFMT == S_IFIFO
    }

    enum Kind { case nothing, regular, stream }

    /// Whether a path could be written, and how, without opening it.
    /// - Throws: when it is what no output can be.
    @discardableResult
    static func kind(of path: String) throws(OutputFileError) -> Kind {
        var status = stat()
        // SAFETY: a live local; the path is a NUL-terminated copy.
        guard unsafe stat(path, &status) == 0 else {
            if errno == ENOENT { return .nothing }
            throw OutputFileError(path, errno)
        }
        switch status.st_mode & S_IFMT {
        case S_IFREG: return .regular
        case S_IFIFO, S_IFCHR: return .stream
        case S_IFDIR: throw OutputFileError(path: path, reason: "a directory: name a file")
        case S_IFBLK:
            throw OutputFileError(path: path, reason: "a block device, which is not overwritten: name a file")
        default:
            throw OutputFileError(path: path, reason: "not a file: name a file, a FIFO or a character device")
        }
    }

    /// Refuses what no output can be: a directory, a block device, a socket. Nothing is opened.
    public static func check(_ path: String) throws(OutputFileError) { try kind(of: path) }

    /// Drops what was in it, if it is a regular file.
    public func clear() throws(OutputFileError) {
        guard identity != nil else { return }
        do throws(LinuxError) { try descriptor.truncate(to: 0) } catch {
            throw OutputFileError(path, error.code)
        }
    }

    /// Takes back that it was made. What a confined process made stays, empty.
    public func forget() {
        // SAFETY: a NUL-terminated copy for the time of the call.
        if isNew, !PathAccess.isOver { _ = unsafe unlink(path) }
    }

    /// Writes what there is room for.
    public func write(_ bytes: ArraySlice<UInt8>) -> WriteResult { Self.write(bytes, to: descriptor.number) }

    /// Writes once. Does not wait if the descriptor is a non-blocking one.
    public static func write(_ bytes: ArraySlice<UInt8>, to number: Int32) -> WriteResult {
        while true {
            let count = unsafe bytes.withUnsafeBytes { buffer in
                // SAFETY: the buffer is alive for the call.
                unsafe Glibc.write(number, buffer.baseAddress, buffer.count)
            }
            if count >= 0 { return .bytes(count) }
            if errno == EAGAIN { return .full }
            if errno != EINTR { return .failed(errno) }
        }
    }

    /// Writes all of it; waits for readers.
    /// - Parameter interrupt: a descriptor whose readiness ends the waiting; -1 for none.
    func writeAll(_ bytes: [UInt8], interrupt: Int32) throws(OutputFileError) {
        var rest = bytes[...]
        while !rest.isEmpty {
            switch write(rest) {
            case .bytes(0): throw OutputFileError(path, EIO)
            case .bytes(let count): rest = rest.dropFirst(count)
            case .failed(EPIPE): throw OutputFileError(path: path, reason: "nobody reads it any more")
            case .failed(let code): throw OutputFileError(path, code)
            case .full:
                var list = PollList()
                _ = list.add(descriptor.number, Int16(POLLOUT))
                let signal = list.add(interrupt, Int16(POLLIN))
                list.wait(milliseconds: -1)
                if list.events(signal) != 0 {
                    throw OutputFileError(
                        path: path, reason: "a signal came before its reader had taken all of it")
                }
            }
        }
    }
}
