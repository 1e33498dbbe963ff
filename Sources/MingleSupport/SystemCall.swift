import CLinux

/// The owner of one open file descriptor; it is closed when the owner goes away.
public struct OwnedDescriptor: ~Copyable, Sendable {
    /// The number of the descriptor, valid as long as this owner lives.
    public let number: Int32

    /// Takes over `number`.
    public init(taking number: Int32) { self.number = number }

    /// Gives the descriptor up without closing it, so that it lives as long as the process.
    public consuming func release() -> Int32 {
        let number = number
        discard self
        return number
    }

    deinit { close(number) }
}

/// What `lstat` or `fstat` say of a file, as far as this module asks.
struct FileStatus: Equatable {
    let device: UInt
    let inode: UInt
    let mode: UInt32
    let owner: UInt32
    let group: UInt32
    let size: Int
    /// What it takes of memory or disk.
    let allocatedBytes: UInt64

    init(_ raw: stat) {
        device = raw.st_dev
        inode = raw.st_ino
        mode = raw.st_mode
        owner = raw.st_uid
        group = raw.st_gid
        size = raw.st_size
        allocatedBytes = UInt64(clamping: raw.st_blocks) * 512
    }

    /// As the C library's gnu_dev_major and gnu_dev_minor take a device apart.
    var deviceMajor: UInt { device >> 8 & 0xfff | device >> 32 & ~0xfff }
    var deviceMinor: UInt { device & 0xff | device >> 12 & 0xffff_ff00 }
    var isDirectory: Bool { mode & UInt32(S_IFMT) == UInt32(S_IFDIR) }
    var isSymbolicLink: Bool { mode & UInt32(S_IFMT) == UInt32(S_IFLNK) }
    var isRegularFile: Bool { mode & UInt32(S_IFMT) == UInt32(S_IFREG) }
    var permissions: UInt32 { mode & 0o7777 }
    func isSameFile(as other: FileStatus) -> Bool { device == other.device && inode == other.inode }
}

/// The calling thread's errno, which is a macro in C.
var errno: Int32 {
    // SAFETY: the C library gives a pointer to this thread's errno, valid as long as the thread.
    unsafe __errno_location().pointee
}

/// System calls with errno and EINTR dealt with in one place. All of them may be called from any thread.
public enum SystemCall {
    /// Standard streams that are closed become /dev/null, so that no file opened later takes their place. First of all.
    public static func fillStandardStreams() { mingle_fill_standard_streams() }

    /// The text for an errno value.
    public static func message(_ code: Int32) -> String {
        // SAFETY: the text is a constant of the C library; nil for a number that it does not know.
        guard let text = unsafe strerrordesc_np(code) else { return "error \(code)" }
        return unsafe String(cString: text)
    }

    /// Opens a file, always with O_CLOEXEC. Throws errno.
    static func open(_ path: String, flags: Int32, mode: mode_t = 0) -> Result<Int32, Errno> {
        while true {
            // SAFETY: the bridged string is NUL-terminated and outlives the call.
            let result = unsafe mingle_open(path, flags, mode)
            if result >= 0 { return .success(result) }
            if -result != EINTR { return .failure(Errno(code: -result)) }
        }
    }

    /// errno as an error, for results that the caller explains.
    struct Errno: Error, Equatable { let code: Int32 }

    /// `lstat`; nil and errno when it fails.
    static func linkStatus(_ path: String) -> Result<FileStatus, Errno> {
        var raw = stat()
        // SAFETY: the bridged string is NUL-terminated, and `raw` is a whole struct stat of ours.
        let failed = unsafe lstat(path, &raw) != 0
        return failed ? .failure(Errno(code: errno)) : .success(FileStatus(raw))
    }

    /// `stat`, following symbolic links.
    static func status(_ path: String) -> Result<FileStatus, Errno> {
        var raw = stat()
        // SAFETY: the bridged string is NUL-terminated, and `raw` is a whole struct stat of ours.
        let failed = unsafe stat(path, &raw) != 0
        return failed ? .failure(Errno(code: errno)) : .success(FileStatus(raw))
    }

    /// `fstat`.
    static func status(ofDescriptor descriptor: Int32) -> Result<FileStatus, Errno> {
        var raw = stat()
        // SAFETY: `raw` is a whole struct stat of ours.
        let failed = unsafe fstat(descriptor, &raw) != 0
        return failed ? .failure(Errno(code: errno)) : .success(FileStatus(raw))
    }

    /// Reads at most `count` bytes at `offset`; fewer come back at the end of the file.
    static func read(_ descriptor: Int32, count: Int, at offset: Int) -> Result<[UInt8], Errno> {
        var bytes = [UInt8](repeating: 0, count: count)
        var filled = 0
        while filled < count {
            // SAFETY: the destination is the unfilled rest of `bytes`, whose size is what is passed.
            let got = unsafe bytes.withUnsafeMutableBytes { buffer in
                unsafe pread(
                    descriptor, buffer.baseAddress.map { unsafe $0 + filled }, count - filled, offset + filled
                )
            }
            if got == 0 { break }
            if got < 0 {
                if errno == EINTR { continue }
                return .failure(Errno(code: errno))
            }
            filled += got
        }
        bytes.removeLast(count - filled)
        return .success(bytes)
    }

    /// The text of a small file, such as those of /proc, or nil when it cannot be read.
    public static func text(of path: String, limit: Int = 1 << 20) -> String? {
        guard case .success(let number) = open(path, flags: O_RDONLY) else { return nil }
        let descriptor = OwnedDescriptor(taking: number)
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

    /// All bytes of a regular file of at most `limit` bytes.
    public static func contents(of path: String, limit: Int = 1 << 30) throws(SupportError) -> [UInt8] {
        let size = try RunChecks.readableFile(path, what: "the file")
        guard size <= UInt64(limit) else {
            throw .unusableImage(
                path: path, reason: "larger than the \(ByteSize.format(UInt64(limit))) that are read")
        }
        let result = open(path, flags: O_RDONLY).flatMap { number in
            let descriptor = OwnedDescriptor(taking: number)
            return read(descriptor.number, count: Int(size), at: 0)
        }
        switch result {
        case .success(let bytes): return bytes
        case .failure(let error): throw .systemCall(operation: "read", subject: path, code: error.code)
        }
    }

    /// The size of a file in bytes, or that of all files in a directory; 0 if there is nothing.
    public static func storedBytes(_ path: String) -> UInt64 {
        guard case .success(let status) = linkStatus(path) else { return 0 }
        guard status.isDirectory else { return status.isRegularFile ? UInt64(clamping: status.size) : 0 }
        guard case .success(let names) = names(in: path) else { return 0 }
        return names.reduce(0) { $0 + storedBytes(path + "/" + $1) }
    }

    /// Whether this process may access `path`; `mode` is made of R_OK, W_OK and X_OK.
    public static func isAccessible(_ path: String, mode: Int32) -> Bool {
        // SAFETY: the bridged string is NUL-terminated and outlives the call.
        unsafe access(path, mode) == 0
    }

    /// Whether something is at `path`, of whatever kind.
    public static func exists(_ path: String) -> Bool {
        if case .success = linkStatus(path) { true } else { false }
    }

    /// What a symbolic link points at.
    static func linkTarget(_ path: String) throws(SupportError) -> String {
        var buffer = [UInt8](repeating: 0, count: 4096)
        // SAFETY: the buffer is ours and its true size is passed; the path is NUL-terminated for the call.
        let count = unsafe buffer.withUnsafeMutableBytes { bytes in
            unsafe bytes.withMemoryRebound(to: CChar.self) { text in
                guard let base = text.baseAddress else { return 0 }
                return unsafe readlink(path, base, text.count)
            }
        }
        guard count > 0 else { throw .systemCall(operation: "follow", subject: path, code: errno) }
        return String(decoding: buffer.prefix(count), as: UTF8.self)
    }

    /// Writes a short text with a single call, as the files of /sys want it.
    static func write(_ descriptor: Int32, _ text: String) -> Result<Void, Errno> {
        let bytes = Array(text.utf8)
        while true {
            // SAFETY: the array is alive for the call and as long as said.
            let count = unsafe CLinux.write(descriptor, bytes, bytes.count)
            if count == bytes.count { return .success(()) }
            if count < 0, errno == EINTR { continue }
            return .failure(Errno(code: count < 0 ? errno : EIO))
        }
    }

    /// Empties a file.
    static func truncate(_ descriptor: Int32) -> Result<Void, Errno> {
        ftruncate(descriptor, 0) == 0 ? .success(()) : .failure(Errno(code: errno))
    }

    /// Gives a file a second name, which nobody may have yet.
    static func link(_ path: String, to name: String) -> Result<Void, Errno> {
        // SAFETY: the bridged strings are NUL-terminated and outlive the call.
        unsafe CLinux.link(path, name) == 0 ? .success(()) : .failure(Errno(code: errno))
    }

    /// Adds a line to a file: what it holds already stays, even when there is no space.
    static func append(_ path: String, line: String) throws(SupportError) {
        let result = open(path, flags: O_WRONLY | O_CREAT | O_APPEND | O_NOFOLLOW, mode: 0o600)
            .flatMap { number in
                let descriptor = OwnedDescriptor(taking: number)
                return write(descriptor.number, line + "\n")
            }
        if case .failure(let error) = result {
            throw .systemCall(operation: "write", subject: path, code: error.code)
        }
    }

    /// Writes a short text into a file that exists.
    static func overwrite(_ path: String, with text: String) -> Result<Void, Errno> {
        open(path, flags: O_WRONLY).flatMap { number in
            let descriptor = OwnedDescriptor(taking: number)
            return write(descriptor.number, text)
        }
    }

    /// Makes a directory for this user alone.
    static func makeDirectory(_ path: String) -> Result<Void, Errno> {
        // SAFETY: the bridged string is NUL-terminated and outlives the call.
        unsafe mkdir(path, 0o700) == 0 ? .success(()) : .failure(Errno(code: errno))
    }

    /// Removes an empty directory.
    static func removeDirectory(_ path: String) -> Bool {
        // SAFETY: the bridged string is NUL-terminated and outlives the call.
        unsafe rmdir(path) == 0
    }

    /// Writes a file anew.
    public static func replace(_ path: String, with text: String) throws(SupportError) {
        let flags = O_WRONLY | O_CREAT | O_TRUNC
        let result = open(path, flags: flags, mode: 0o644).flatMap { number in
            let descriptor = OwnedDescriptor(taking: number)
            return write(descriptor.number, text)
        }
        if case .failure(let error) = result {
            throw .systemCall(operation: "write", subject: path, code: error.code)
        }
    }

    static func remove(_ path: String) {
        // SAFETY: the bridged string is NUL-terminated and outlives the call. A file that is gone already is fine.
        _ = unsafe unlink(path)
    }

    /// The names in a directory, sorted, without those that start with a dot.
    static func names(in path: String) -> Result<[String], Errno> {
        // SAFETY: the bridged string is NUL-terminated; the stream is closed below and used by this thread alone.
        guard let stream = unsafe opendir(path) else { return .failure(Errno(code: errno)) }
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
    public static func sleep(milliseconds: UInt32) { usleep(milliseconds * 1000) }

    /// The clocks of the system: `realtime` counts from 1970, the others never jump; `boot` goes on while the host sleeps.
    public enum Clock: Sendable { case realtime, monotonic, boot }

    /// A clock in nanoseconds.
    public static func nanoseconds(of clock: Clock) -> UInt64 {
        var now = timespec()
        let number =
            switch clock {
            case .realtime: CLOCK_REALTIME
            case .monotonic: CLOCK_MONOTONIC
            case .boot: CLOCK_BOOTTIME
            }
        // SAFETY: `now` is a whole struct timespec of ours.
        guard unsafe clock_gettime(number, &now) == 0 else { return 0 }
        return UInt64(clamping: now.tv_sec) * 1_000_000_000 + UInt64(clamping: now.tv_nsec)
    }
}
