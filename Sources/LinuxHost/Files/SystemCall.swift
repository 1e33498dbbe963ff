internal import CLinux
internal import Glibc

/// System calls with errno and EINTR dealt with in one place. All of them may be called from any thread.
package enum SystemCall {
    /// Standard streams that are closed become /dev/null, so that no file opened later takes their place. First of all.
    package static func fillStandardStreams() { mingle_fill_standard_streams() }

    /// Opens a file, always with O_CLOEXEC. Throws errno.
    package static func open(_ path: String, flags: Int32, mode: UInt32 = 0) -> Result<Int32, LinuxError> {
        while true {
            // SAFETY: the bridged string is NUL-terminated and outlives the call.
            let result = unsafe mingle_open(path, flags, mode)
            if result >= 0 { return .success(result) }
            if -result != EINTR {
                return .failure(LinuxError(operation: "open", code: -result, subject: path))
            }
        }
    }

    /// `lstat`; nil and errno when it fails.
    package static func linkStatus(_ path: String) -> Result<FileStatus, LinuxError> {
        var raw = stat()
        // SAFETY: the bridged string is NUL-terminated, and `raw` is a whole struct stat of ours.
        let failed = unsafe lstat(path, &raw) != 0
        return failed ? .failure(.current("stat")) : .success(FileStatus(raw))
    }

    /// `stat`, following symbolic links.
    package static func status(_ path: String) -> Result<FileStatus, LinuxError> {
        var raw = stat()
        // SAFETY: the bridged string is NUL-terminated, and `raw` is a whole struct stat of ours.
        let failed = unsafe stat(path, &raw) != 0
        return failed ? .failure(.current("stat")) : .success(FileStatus(raw))
    }

    /// `fstat`.
    package static func status(ofDescriptor descriptor: Int32) -> Result<FileStatus, LinuxError> {
        var raw = stat()
        // SAFETY: `raw` is a whole struct stat of ours.
        let failed = unsafe fstat(descriptor, &raw) != 0
        return failed ? .failure(.current("stat")) : .success(FileStatus(raw))
    }

    /// Reads at most `count` bytes at `offset`; fewer come back at the end of the file.
    package static func read(_ descriptor: Int32, count: Int, at offset: Int) -> Result<[UInt8], LinuxError> {
        do throws(LinuxError) {
            return .success(
                try OwnedDescriptor.readBytes(of: descriptor, count: count, at: UInt64(max(0, offset))))
        } catch { return .failure(error) }
    }

    /// The text of a small file, such as those of /proc, or nil when it cannot be read.
    package static func text(of path: String, limit: Int = 1 << 20) -> String? {
        guard case .success(let number) = open(path, flags: O_RDONLY) else { return nil }
        let descriptor = OwnedDescriptor(adopting: number)
        var bytes: [UInt8] = []
        // Most are short, and are read again and again: no large buffer is cleared for them.
        var size = 4096
        while bytes.count < limit {
            let wanted = min(size, limit - bytes.count)
            guard case .success(let more) = read(descriptor.number, count: wanted, at: bytes.count) else {
                return nil
            }
            bytes += more
            if more.count < wanted { break }
            size *= 4
        }
        return String(decoding: bytes, as: UTF8.self)
    }

    /// The size of a file in bytes, or that of all files in a directory; 0 if there is nothing.
    package static func storedBytes(_ path: String) -> UInt64 {
        guard case .success(let status) = linkStatus(path) else { return 0 }
        guard status.isDirectory else { return status.isRegularFile ? UInt64(clamping: status.size) : 0 }
        guard case .success(let names) = names(in: path) else { return 0 }
        return names.reduce(0) { $0 + storedBytes(path + "/" + $1) }
    }

    /// Whether this process may access `path`; `mode` is made of R_OK, W_OK and X_OK.
    package static func isAccessible(_ path: String, mode: Int32) -> Bool {
        // SAFETY: the bridged string is NUL-terminated and outlives the call.
        unsafe access(path, mode) == 0
    }

    /// Whether something is at `path`, of whatever kind.
    package static func exists(_ path: String) -> Bool {
        if case .success = linkStatus(path) { true } else { false }
    }

    /// `readlink`: what a symbolic link points at.
    package static func readLink(_ path: String) -> Result<String, LinuxError> {
        var buffer = [UInt8](repeating: 0, count: 4096)
        // SAFETY: the buffer is ours and its true size is passed; the path is NUL-terminated for the call.
        let count = unsafe buffer.withUnsafeMutableBytes { bytes in
            unsafe bytes.withMemoryRebound(to: CChar.self) { text in
                guard let base = text.baseAddress else { return 0 }
                return unsafe readlink(path, base, text.count)
            }
        }
        guard count > 0 else { return .failure(.current("readlink", path)) }
        return .success(String(decoding: buffer.prefix(count), as: UTF8.self))
    }

    /// Writes a short text with a single call, as the files of /sys want it.
    package static func write(_ descriptor: Int32, _ text: String) -> Result<Void, LinuxError> {
        let bytes = Array(text.utf8)
        while true {
            // SAFETY: the array is alive for the call and as long as said.
            let count = unsafe CLinux.write(descriptor, bytes, bytes.count)
            if count == bytes.count { return .success(()) }
            if count < 0, errno == EINTR { continue }
            return .failure(LinuxError(operation: "write", code: count < 0 ? errno : EIO))
        }
    }

    /// Empties a file.
    package static func truncate(_ descriptor: Int32) -> Result<Void, LinuxError> {
        ftruncate(descriptor, 0) == 0 ? .success(()) : .failure(.current("ftruncate"))
    }

    /// Gives a file a second name, which nobody may have yet.
    package static func link(_ path: String, to name: String) -> Result<Void, LinuxError> {
        // SAFETY: the bridged strings are NUL-terminated and outlive the call.
        unsafe CLinux.link(path, name) == 0 ? .success(()) : .failure(.current("link"))
    }

    /// Writes a short text into a file that exists.
    package static func overwrite(_ path: String, with text: String) -> Result<Void, LinuxError> {
        open(path, flags: O_WRONLY).flatMap { number in
            let descriptor = OwnedDescriptor(adopting: number)
            return write(descriptor.number, text)
        }
    }

    /// Makes a directory for this user alone.
    package static func makeDirectory(_ path: String) -> Result<Void, LinuxError> {
        // SAFETY: the bridged string is NUL-terminated and outlives the call.
        unsafe mkdir(path, 0o700) == 0 ? .success(()) : .failure(.current("mkdir"))
    }

    /// Removes an empty directory.
    package static func removeDirectory(_ path: String) -> Bool {
        // SAFETY: the bridged string is NUL-terminated and outlives the call.
        unsafe rmdir(path) == 0
    }

    package static func remove(_ path: String) {
        // SAFETY: the bridged string is NUL-terminated and outlives the call. A file that is gone already is fine.
        _ = unsafe unlink(path)
    }

    /// The names in a directory, sorted, without those that start with a dot.
    package static func names(in path: String) -> Result<[String], LinuxError> {
        // SAFETY: the bridged string is NUL-terminated; the stream is closed below and used by this thread alone.
        guard let stream = unsafe opendir(path) else { return .failure(.current("opendir")) }
        defer { unsafe closedir(stream) }
        var names: [String] = []
        // SAFETY: an entry is valid until the next readdir of this stream; d_name is NUL-terminated within it.
        while let entry = unsafe readdir(stream) {
            let name = unsafe withUnsafePointer(to: &entry.pointee.d_name) { field in
                unsafe field.withMemoryRebound(to: CChar.self, capacity: 256) { unsafe String(cString: $0) }
            }
            if !name.hasPrefix(".") { names.append(name) }
        }
        return .success(names.sorted())
    }

    /// Sleeps; a signal may end it early.
    package static func sleep(milliseconds: UInt32) { usleep(milliseconds * 1000) }
}
