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
        let status: FileStatus
        switch SystemCall.linkStatus(directory) {
        case .success(let found): status = found
        case .failure(let error):
            throw .notStarted("\(LinuxError(operation: "stat", code: error.code, subject: directory))")
        }
        guard status.isDirectory, status.owner == geteuid(), status.mode & 0o077 == 0 else {
            throw .notStarted(
                "\(directory) must be a directory of yours that nobody else can enter (mode 0700)")
        }
    }

    /// Takes the lock that a supervisor holds as long as it lives.
    /// - Returns: nil when another one holds it.
    package func claim() throws(LinuxError) -> OwnedDescriptor? { try LockedFile.claim(lock) }

    /// The paths in a folder of the directory, without hidden ones.
    package func paths(inFolder folder: String) -> [String] {
        let path = directory + "/" + folder
        guard case .success(let names) = SystemCall.names(in: path) else { return [] }
        return names.filter { !$0.hasPrefix(".") }.map { path + "/" + $0 }
    }

    package func remove(_ path: String) { SystemCall.remove(path) }

    /// Adds a line to the log, which keeps to 64 KiB.
    package func note(_ text: String) {
        do throws(LinuxError) {
            let file = try OwnedDescriptor.open(log, flags: O_WRONLY | O_CREAT | O_APPEND | O_NOFOLLOW)
            if try file.fileSize() > 64 << 10 { try file.truncate(to: 0) }
            _ = SystemCall.write(file.number, text + "\n")
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
            _ = SystemCall.write(file.number, path + "\n")
        } catch { return }
    }
}
