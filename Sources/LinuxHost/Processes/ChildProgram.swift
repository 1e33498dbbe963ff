internal import CLinux
internal import Glibc

/// A program to be started as a child of this process, with all that the child is given. No signal is blocked in it,
/// and of our descriptors it has those of ``streams`` alone: all others are close-on-exec. From any thread.
///
/// This is the only place that starts processes. Never forks: posix_spawn(3).
package struct ChildProgram: Sendable {
    /// What one descriptor of the child is.
    package enum Stream: Sendable {
        /// The open file behind a descriptor of ours, which stays ours.
        case descriptor(Int32)
        /// A file that the child opens with flags of open(2); one that is made is for its owner alone.
        case file(String, Int32)

        /// Empty when read; takes all that is written.
        package static let nothing = Stream.file("/dev/null", O_RDWR)
        /// A file that is made, or emptied.
        package static func into(_ path: String) -> Stream { .file(path, O_WRONLY | O_CREAT | O_TRUNC) }
        /// A file that is made, or written on at its end.
        package static func onto(_ path: String) -> Stream { .file(path, O_WRONLY | O_CREAT | O_APPEND) }
    }

    package var path: String
    /// The command line; its first word is what the program finds as its own name.
    package var words: [String]
    /// "NAME=value" each; nil: the environment of this process.
    package var environment: [String]? = []
    /// The child's descriptors from 0 on: standard input, output and errors, and more.
    package var streams: [Stream] = [.nothing, .nothing, .nothing]
    /// The working directory; nil: that of this process.
    package var directory: String?
    /// Whether a path without a slash is looked up in this process's PATH.
    package var searchesPath = false
    /// Whether the child ignores the signals that this process ignores, as a program does that a shell starts;
    /// otherwise it ignores none.
    package var keepsIgnoredSignals = false
    /// What the child leads, beside itself.
    package var leads = Leads.nothing

    /// Whose leader a child is.
    package enum Leads: Sendable {
        /// It is a member of our process group.
        case nothing
        /// A process group of its own: keys of the terminal do not reach it, nor does its hang-up, which goes to the session's
        /// leader and to the group in the foreground.
        case group
        /// A session of its own. Where the kernel gives each session a share of the CPU (sched_autogroup), a process alone in one
        /// that often sleeps may get next to nothing beside busy sessions (docs/broker.md).
        case session
    }

    /// - Parameter name: the first word of the command line; nil: the path.
    package init(_ path: String, _ arguments: [String] = [], name: String? = nil) {
        self.path = path
        words = [name ?? path] + arguments
    }

    /// Starts it. Whoever calls collects it when it has ended: ``HostProcess/collect(_:wait:)``.
    /// - Returns: the number of the child.
    /// - Throws: "posix_spawn" with the path: also when a file of ``streams`` cannot be opened, or there is no such
    ///   program or directory. "dup" when this process may open no more.
    package func start() throws(LinuxError) -> Int32 {
        var actions = unsafe posix_spawn_file_actions_t()
        var attributes = posix_spawnattr_t()
        var all = sigset_t()
        var none = sigset_t()
        // SAFETY: live locals, set up before use and destroyed once; strings are copied by each call.
        unsafe posix_spawn_file_actions_init(&actions)
        defer { unsafe posix_spawn_file_actions_destroy(&actions) }
        // Copies above all of the child's: none is overwritten before it has its place.
        var copies: [Int32] = []
        defer { copies.forEach { _ = close($0) } }
        for (index, stream) in streams.enumerated() {
            let number = Int32(index)
            switch stream {
            case .descriptor(let ours):
                let least = max(16, Int32(streams.count))
                let copy = try checked(mingle_fcntl(ours, F_DUPFD_CLOEXEC, least), "dup", "\(ours)")
                copies.append(copy)
                unsafe posix_spawn_file_actions_adddup2(&actions, copy, number)
            case .file(let path, let flags):
                unsafe posix_spawn_file_actions_addopen(&actions, number, path, flags, 0o600)
            }
        }
        if let directory { unsafe mingle_spawn_directory(&actions, directory) }
        unsafe posix_spawnattr_init(&attributes)
        defer { unsafe posix_spawnattr_destroy(&attributes) }
        unsafe sigfillset(&all)
        unsafe sigemptyset(&none)
        unsafe posix_spawnattr_setsigdefault(&attributes, &all)
        unsafe posix_spawnattr_setsigmask(&attributes, &none)
        var flags = Int16(POSIX_SPAWN_SETSIGMASK)
        if !keepsIgnoredSignals { flags |= Int16(POSIX_SPAWN_SETSIGDEF) }
        switch leads {
        case .nothing: break
        case .group: flags |= Int16(POSIX_SPAWN_SETPGROUP)
        case .session: flags |= MINGLE_SPAWN_SETSID
        }
        unsafe posix_spawnattr_setflags(&attributes, flags)

        var words = unsafe words.map { unsafe strdup($0) }
        unsafe words.append(nil)
        defer { unsafe words.forEach { unsafe free($0) } }
        var variables = unsafe (environment ?? []).map { unsafe strdup($0) }
        unsafe variables.append(nil)
        defer { unsafe variables.forEach { unsafe free($0) } }
        let spawn = unsafe searchesPath ? posix_spawnp : posix_spawn
        var child: pid_t = 0
        // SAFETY: both lists end with NULL and outlive the call; nothing here changes our own environment.
        let error =
            if environment == nil {
                unsafe spawn(&child, path, &actions, &attributes, &words, environ)
            } else {
                unsafe spawn(&child, path, &actions, &attributes, &words, &variables)
            }
        guard error == 0 else { throw LinuxError(operation: "posix_spawn", code: error, subject: path) }
        return child
    }
}
