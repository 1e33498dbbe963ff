internal import CLinux
internal import Glibc
internal import GuestMemory

/// The broker's files in a state directory.
struct BrokerFiles {
    let directory: String
    var socket: String { directory + "/broker.sock" }
    var lock: String { directory + "/broker.lock" }
    var log: String { directory + "/broker.log" }

    /// Whether the directory is ours and nobody else can enter it.
    func check() throws(BrokerError) {
        if let problem = UserNumbers.current.problem { throw .notStarted(problem) }
        guard directory.hasPrefix("/") else { throw .notStarted("\(directory) must be an absolute path") }
        var status = stat()
        // SAFETY: a live local; the path is a NUL-terminated copy.
        guard unsafe lstat(directory, &status) == 0 else {
            throw .notStarted("\(LinuxError.current("stat", directory))")
        }
        guard status.st_mode & S_IFMT == S_IFDIR, status.st_uid == geteuid(), status.st_mode & 0o077 == 0
        else {
            throw .notStarted(
                "\(directory) must be a directory of yours that nobody else can enter (mode 0700)")
        }
    }

    /// Takes the lock that a supervisor holds as long as it lives.
    /// - Returns: nil when another one holds it.
    func claim() throws(LinuxError) -> OwnedDescriptor? {
        // A file that is removed between open and lock is nobody's: look again.
        for _ in 0..<100 {
            let file = try OwnedDescriptor.open(lock, flags: O_RDWR | O_CREAT | O_NOFOLLOW)
            guard flock(file.number, LOCK_EX | LOCK_NB) == 0 else {
                if errno == EWOULDBLOCK { return nil }
                throw .current("flock", lock)
            }
            var (open, named) = (stat(), stat())
            // SAFETY: live locals; the path is a NUL-terminated copy.
            if unsafe fstat(file.number, &open) == 0, unsafe lstat(lock, &named) == 0,
                open.st_ino == named.st_ino,
                open.st_dev == named.st_dev
            {
                return file
            }
        }
        throw LinuxError(operation: "flock", code: EBUSY, subject: lock)
    }

    /// The paths of guests' control sockets.
    func controlSockets() -> [String] {
        var paths: [String] = []
        // SAFETY: the path is a NUL-terminated copy; the stream is closed below and used by this thread alone, and an entry is
        // read before the next call replaces it.
        guard let stream = unsafe opendir(directory + "/control") else { return [] }
        defer { unsafe closedir(stream) }
        while let entry = unsafe readdir(stream) {
            let name = unsafe withUnsafeBytes(of: &entry.pointee.d_name) { bytes in
                unsafe String(decoding: bytes.prefix { $0 != 0 }, as: UTF8.self)
            }
            if !name.hasPrefix(".") { paths.append(directory + "/control/" + name) }
        }
        return paths
    }

    func remove(_ path: String) {
        // SAFETY: a NUL-terminated copy for the time of the call.
        _ = unsafe unlink(path)
    }

    /// Adds a line to the log, which keeps to 64 KiB.
    func note(_ text: String) {
        do throws(LinuxError) {
            let file = try OwnedDescriptor.open(log, flags: O_WRONLY | O_CREAT | O_APPEND | O_NOFOLLOW)
            if try file.fileSize() > 64 << 10 { try file.truncate(to: 0) }
            let line = Array((text + "\n").utf8)
            // SAFETY: the array is alive for the call.
            _ = unsafe write(file.number, line, line.count)
        } catch { return }
    }
}

/// A control group of the broker's own, so that frames are charged to it and not to the guest that happened to start it.
/// Best effort: most users may not make one.
struct OwnCgroup {
    private static let prefix = "mingle-broker."
    private let path: String

    /// Below the cgroup of this process.
    init?() {
        guard let parent = Self.current() else { return nil }
        let directory = "/sys/fs/cgroup" + (parent == "/" ? "" : parent)
        Self.removeLeftovers(in: directory)
        path = directory + "/" + Self.prefix + String(getpid())
        // SAFETY: a NUL-terminated copy for the time of the call.
        guard unsafe mkdir(path, 0o700) == 0 else { return nil }
    }

    /// That of a worker whose supervisor was lost, and who started this process: it was born there, and leaves it.
    static func adopted() -> OwnCgroup? {
        guard isOurs, let current = current(), let slash = current.lastIndex(of: "/") else { return nil }
        let parent = OwnCgroup(path: "/sys/fs/cgroup" + current[..<slash])
        parent.add(HostProcess.number)
        return OwnCgroup(path: "/sys/fs/cgroup" + current)
    }

    private init(path: String) { self.path = path }

    /// Removes the groups of brokers that were killed; one that is in use cannot be removed.
    private static func removeLeftovers(in directory: String) {
        // SAFETY: the path is a NUL-terminated copy; the stream is closed below and used by this thread alone, and an
        // entry is read before the next call replaces it.
        guard let stream = unsafe opendir(directory) else { return }
        defer { unsafe closedir(stream) }
        while let entry = unsafe readdir(stream) {
            let name = unsafe withUnsafeBytes(of: &entry.pointee.d_name) { bytes in
                unsafe String(decoding: bytes.prefix { $0 != 0 }, as: UTF8.self)
            }
            guard name.hasPrefix(prefix), let process = Int32(name.dropFirst(prefix.count)),
                kill(process, 0) != 0,
                errno == ESRCH
            else { continue }
            _ = unsafe rmdir(directory + "/" + name)
        }
    }

    func add(_ process: Int32) {
        do throws(LinuxError) {
            let file = try OwnedDescriptor.open(path + "/cgroup.procs", flags: O_WRONLY)
            let text = Array(String(process).utf8)
            // SAFETY: the array is alive for the call.
            _ = unsafe write(file.number, text, text.count)
        } catch { return }
    }

    func remove() {
        // SAFETY: a NUL-terminated copy for the time of the call.
        _ = unsafe rmdir(path)
    }

    /// Whether this process is in such a cgroup.
    static var isOurs: Bool { current()?.split(separator: "/").last?.hasPrefix(prefix) ?? false }

    private static func current() -> String? {
        do throws(LinuxError) {
            let file = try OwnedDescriptor.open("/proc/self/cgroup", flags: O_RDONLY)
            let text = String(decoding: try file.read(count: 4096, at: 0), as: UTF8.self)
            return text.split(separator: "\n").first { $0.hasPrefix("0::") }.map { String($0.dropFirst(3)) }
        } catch { return nil }
    }
}
