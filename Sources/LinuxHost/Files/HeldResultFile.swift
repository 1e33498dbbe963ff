internal import CLinux
internal import Glibc

/// A file that holds a result, for a process that will not be allowed to open one when the result is there: opened at once, written
/// at the end.
///
/// Until then nothing in it changes. Room for the result is had before the first byte is written, so a full disk leaves the old one
/// as it is. What ``ResultFile`` gets by a rename, that a reader never sees half of it, is not to be had without a path: a reader
/// waits for the writer's end.
public struct HeldResultFile: ~Copyable, Sendable {
    private let file: OutputFile
    public var identity: FileIdentity? { file.identity }

    /// Opens it without changing what is in it; makes it, empty, if it is not there.
    /// - Throws: what no output can be, a FIFO that nobody reads.
    public init(_ path: String) throws(OutputFileError) { file = try .open(path) }

    /// Takes back that it was made.
    public func forget() { file.forget() }

    /// Writes all of it.
    /// - Parameter interrupt: a descriptor whose readiness ends the waiting for the reader of a FIFO; -1 for none.
    public func write(_ bytes: [UInt8], interrupt: Int32 = -1) throws(OutputFileError) {
        guard file.identity != nil else { return try file.writeAll(bytes, interrupt: interrupt) }
        let number = file.descriptor.number
        let reserved = -mingle_reserve(number, UInt64(bytes.count))
        // A file system that cannot reserve is tried all the same.
        guard [0, EOPNOTSUPP, ENOSYS, EINVAL, ENODEV].contains(reserved) else {
            throw OutputFileError(file.path, reserved)
        }
        do throws(OutputFileError) {
            try file.writeAll(bytes, interrupt: -1)
            guard ftruncate(number, bytes.count) == 0 else { throw OutputFileError(file.path, errno) }
            // A disk behind a network may find only now that there is no room.
            if fsync(number) != 0, ![EINVAL, EROFS].contains(errno) {
                throw OutputFileError(file.path, errno)
            }
        } catch {
            try? file.clear()
            throw error
        }
    }
}
