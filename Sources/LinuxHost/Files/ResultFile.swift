internal import CLinux
internal import Glibc

/// A file that holds a result: it is written whole or not at all.
///
/// A regular file is written beside the old one and takes its place when all of it is there, so an old one stays if that
/// fails. Where that cannot be done (a symbolic link, a folder in which nothing may be made, a mount point), it is written in
/// place, and emptied again if not all of it could be written. A FIFO or a device is opened at once.
public struct ResultFile: ~Copyable, Sendable {
    public let path: String
    private let stream: OutputFile?

    /// - Throws: what no output can be, a FIFO that nobody reads.
    public init(_ path: String) throws(OutputFileError) {
        self.path = path
        stream = try OutputFile.kind(of: path) == .stream ? try .open(path) : nil
    }

    /// Writes all of it.
    /// - Parameter interrupt: a descriptor whose readiness ends the waiting for the reader of a FIFO; -1 for none.
    public func write(_ bytes: [UInt8], interrupt: Int32 = -1) throws(OutputFileError) {
        if stream != nil {
            try stream?.writeAll(bytes, interrupt: interrupt)
        } else if try !replace(with: bytes) {
            try writeInPlace(bytes)
        }
    }

    /// - Returns: false when it cannot be done so, and nothing was changed.
    private func replace(with bytes: [UInt8]) throws(OutputFileError) -> Bool {
        var old = stat()
        // SAFETY: a live local; the path is a NUL-terminated copy.
        let exists = unsafe lstat(path, &old) == 0
        if exists, old.st_mode & S_IFMT != S_IFREG { return false }
        let cut = path.lastIndex(of: "/").map { path.index(after: $0) } ?? path.startIndex
        let beside = "\(path[..<cut]).\(path[cut...]).\(getpid()).part"
        let file: OutputFile
        do throws(LinuxError) {
            let flags = O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW
            file = OutputFile(
                descriptor: try .open(beside, flags: flags, mode: 0o644), path: path, identity: nil,
                isNew: false)
        } catch {
            if [ENOSPC, EDQUOT].contains(error.code) { throw OutputFileError(path, error.code) }
            return false
        }
        do throws(OutputFileError) {
            if exists {
                // Whoever could read or write it still can. Only root can keep another owner.
                _ = fchown(file.descriptor.number, old.st_uid, old.st_gid)
                _ = fchmod(file.descriptor.number, old.st_mode & 0o7777)
            }
            try file.writeAll(bytes, interrupt: -1)
            // A disk behind a network may find only now that there is no room.
            if fsync(file.descriptor.number) != 0, ![EINVAL, EROFS].contains(errno) {
                throw OutputFileError(path, errno)
            }
        } catch {
            // SAFETY: a NUL-terminated copy for the time of the call.
            _ = unsafe unlink(beside)
            throw error
        }
        // SAFETY: NUL-terminated copies for the time of the calls.
        if unsafe rename(beside, path) == 0 { return true }
        _ = unsafe unlink(beside)
        return false
    }

    private func writeInPlace(_ bytes: [UInt8]) throws(OutputFileError) {
        let file = try OutputFile.open(path)
        try file.clear()
        do throws(OutputFileError) { try file.writeAll(bytes, interrupt: -1) } catch {
            try? file.clear()
            file.forget()
            throw error
        }
    }
}
