import FoundationEssentials
import Glibc
import LinuxHost

/// The few file operations used here, with errors that name the operation, the path and the reason.
enum FileSystem {
    static func read(_ path: String) throws(GuestImagesError) -> [UInt8] {
        do {
            return Array(try Data(contentsOf: URL(filePath: path)))
        } catch {
            throw failure("read", path, error)
        }
    }

    private static let temporarySuffix = ".new"

    /// Whether ``write(_:to:permissions:)`` gives such names to files that are not all there yet.
    static func isTemporary(_ name: String) -> Bool { name.hasSuffix(temporarySuffix) }

    /// Writes a file so that it is either all there or not at all: to a temporary file beside it, which is renamed.
    static func write(_ bytes: [UInt8], to path: String, permissions: UInt16 = 0o644) throws(GuestImagesError)
    {
        let temporary = "\(path).\(getpid()).\(UInt32.random(in: 0...UInt32.max))\(temporarySuffix)"
        do {
            try Data(bytes).write(to: URL(filePath: temporary))
            try FileManager.default.setAttributes(
                [.posixPermissions: Int(permissions)], ofItemAtPath: temporary)
        } catch {
            try? FileManager.default.removeItem(atPath: temporary)
            throw failure("write", path, error)
        }
        do throws(GuestImagesError) {
            try move(temporary, to: path)
        } catch {
            try? FileManager.default.removeItem(atPath: temporary)
            throw error
        }
    }

    /// rename(2): replaces a file, or an empty directory, in one step.
    static func move(_ source: String, to path: String) throws(GuestImagesError) {
        // SAFETY: the strings are valid for the call.
        guard unsafe rename(source, path) == 0 else { throw systemFailure("rename \(source) to", path) }
    }

    /// Creates a directory, and those above it, for this user alone.
    static func makeDirectory(_ path: String) throws(GuestImagesError) {
        do {
            try FileManager.default.createDirectory(
                atPath: path, withIntermediateDirectories: true, attributes: [.posixPermissions: 0o700])
        } catch {
            throw failure("create the directory", path, error)
        }
    }

    /// The names in a directory, sorted; none if it is not there.
    static func names(in directory: String) -> [String] {
        ((try? FileManager.default.contentsOfDirectory(atPath: directory)) ?? []).sorted()
    }

    /// Paths of all files under a directory, relative to it, sorted.
    static func tree(under directory: String) -> [String] {
        ((try? FileManager.default.subpathsOfDirectory(atPath: directory)) ?? []).sorted()
    }

    static func remove(_ path: String) throws(GuestImagesError) {
        guard exists(path) else { return }
        do {
            try FileManager.default.removeItem(atPath: path)
        } catch {
            throw failure("remove", path, error)
        }
    }

    static func exists(_ path: String) -> Bool {
        FileManager.default.fileExists(atPath: path)
    }

    static func isReadable(_ path: String) -> Bool {
        FileManager.default.isReadableFile(atPath: path)
    }

    static func isDirectory(_ path: String) -> Bool {
        status(path)?.isDirectory ?? false
    }

    /// Size in bytes and modification time, nil if it is no regular file. The time is in nanoseconds since 1970 but whole
    /// seconds: archives keep no more, and a cache that was copied must stay good.
    static func sizeAndTime(_ path: String) -> (size: Int, modified: Int64)? {
        guard let status = status(path), status.isRegularFile else { return nil }
        return (status.size, status.modifiedSeconds * 1_000_000_000)
    }

    /// The texts of ENOSPC and EDQUOT, which programs in the C locale say as well.
    static let noRoomTexts = [LinuxError.message(ENOSPC), LinuxError.message(EDQUOT)]

    /// Seconds since the last change; 0 if there is nothing.
    static func age(_ path: String) -> Int64 {
        status(path).map { Int64(Clock.realtime.nanoseconds / 1_000_000_000) - $0.modifiedSeconds } ?? 0
    }

    /// The path without symbolic links.
    static func realPath(_ path: String) -> String {
        URL(filePath: path).resolvingSymlinksInPath().path
    }

    static func systemFailure(_ operation: String, _ path: String) -> GuestImagesError {
        .file(operation: operation, path: path, reason: LinuxError.message(errno))
    }

    private static func status(_ path: String) -> FileStatus? { try? SystemCall.status(path).get() }

    private static func failure(_ operation: String, _ path: String, _ error: any Error) -> GuestImagesError {
        let posix = (error as? CocoaError)?.underlying as? POSIXError
        return .file(
            operation: operation, path: path,
            reason: posix.map { LinuxError.message($0.code.rawValue) } ?? "\(error)")
    }
}
