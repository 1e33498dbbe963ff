internal import CLinux
internal import Glibc
package import LinuxHost

/// The broker's files in a state directory.
package struct BrokerFiles {
    package let directory: String

    package init(directory: String) { self.directory = directory }

    package var socket: String { directory + "/broker.sock" }
    package var lock: String { directory + "/broker.lock" }
    package var log: String { directory + "/broker.log" }
    /// Holds the folder of the broker's own control group, so that it goes even if the broker is killed.
    package var group: String { directory + "/broker.cgroup" }

    /// Whether the directory is ours and nobody else can enter it.
    package func check() throws(BrokerError) {
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
    package func claim() throws(LinuxError) -> OwnedDescriptor? { try LockedFile.claim(lock) }

    /// The paths in a folder of the directory, without hidden ones.
    package func paths(inFolder folder: String) -> [String] {
        var paths: [String] = []
        // SAFETY: the path is a NUL-terminated copy; the stream is closed below and used by this thread alone, and an entry is
        // read before the next call replaces it.
        guard let stream = unsafe opendir(directory + "/" + folder) else { return [] }
        defer { unsafe closedir(stream) }
        while let entry = unsafe readdir(stream) {
            let name = unsafe withUnsafeBytes(of: &entry.pointee.d_name) { bytes in
                unsafe String(decoding: bytes.prefix { $0 != 0 }, as: UTF8.self)
            }
            if !name.hasPrefix(".") { paths.append(directory + "/" + folder + "/" + name) }
        }
        return paths
    }

    package func remove(_ path: String) {
        // SAFETY: a NUL-terminated copy for the time of the call.
        _ = unsafe unlink(path)
    }

    /// Adds a line to the log, which keeps to 64 KiB.
    package func note(_ text: String) {
        do throws(LinuxError) {
            let file = try OwnedDescriptor.open(log, flags: O_WRONLY | O_CREAT | O_APPEND | O_NOFOLLOW)
            if try file.fileSize() > 64 << 10 { try file.truncate(to: 0) }
            let line = Array((text + "\n").utf8)
            // SAFETY: the array is alive for the call.
            _ = unsafe write(file.number, line, line.count)
        } catch { return }
    }

    /// Removes the control group of a broker that was killed; with the lock held.
    package func clearGroup() {
        do throws(LinuxError) {
            let file = try OwnedDescriptor.open(group, flags: O_RDONLY | O_NOFOLLOW)
            let text = String(decoding: try file.read(count: 4096, at: 0), as: UTF8.self)
            // Without its end, it was not written to the end.
            if text.hasSuffix("\n") { OwnCgroup.removeLeftover(String(text.dropLast())) }
        } catch { return }
        remove(group)
    }

    /// Writes down the folder of the broker's own control group; with the lock held.
    package func noteGroup(_ path: String) {
        do throws(LinuxError) {
            let file = try OwnedDescriptor.open(group, flags: O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW)
            let line = Array((path + "\n").utf8)
            // SAFETY: the array is alive for the call.
            _ = unsafe write(file.number, line, line.count)
        } catch { return }
    }
}
