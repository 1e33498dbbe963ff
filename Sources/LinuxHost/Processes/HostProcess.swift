internal import CLinux
internal import Glibc

/// Starting processes, waiting for them, and what a process makes of itself. Never forks: posix_spawn(3) alone.
package enum HostProcess {
    package static let ownExecutable = "/proc/self/exe"

    /// Starts a program with an empty environment, no signal blocked or ignored, and /dev/null as its standard streams.
    /// - Parameters:
    ///   - name: what the program finds as its own name.
    ///   - errors: a file that takes the place of its standard error.
    ///   - errorDescriptor: a descriptor that does.
    ///   - inherited: become the child's descriptors from 3 on; everything else is close-on-exec.
    ///   - newSession: whether the child leads a session of its own.
    package static func spawn(
        _ path: String, _ arguments: [String], name: String = "mingle-broker", errors: String? = nil,
        errorDescriptor: Int32 = 0, inherited: [Int32] = [], newSession: Bool = false
    ) throws(LinuxError) -> Int32 {
        var actions = unsafe posix_spawn_file_actions_t()
        var attributes = posix_spawnattr_t()
        var all = sigset_t()
        var none = sigset_t()
        // SAFETY: live locals, set up before use and destroyed once; strings are copied by each call.
        unsafe posix_spawn_file_actions_init(&actions)
        defer { unsafe posix_spawn_file_actions_destroy(&actions) }
        unsafe posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDWR, 0)
        unsafe posix_spawn_file_actions_adddup2(&actions, 0, 1)
        if let errors {
            unsafe posix_spawn_file_actions_addopen(&actions, 2, errors, O_WRONLY | O_CREAT | O_APPEND, 0o600)
        } else {
            unsafe posix_spawn_file_actions_adddup2(&actions, errorDescriptor, 2)
        }
        // Copies above all of the child's: none is overwritten before it has its place.
        var copies: [Int32] = []
        defer { copies.forEach { _ = close($0) } }
        for (index, number) in inherited.enumerated() {
            let copy = try checked(mingle_fcntl(number, F_DUPFD_CLOEXEC, 16), "dup", "\(number)")
            copies.append(copy)
            unsafe posix_spawn_file_actions_adddup2(&actions, copy, Int32(3 + index))
        }
        unsafe posix_spawnattr_init(&attributes)
        defer { unsafe posix_spawnattr_destroy(&attributes) }
        unsafe sigfillset(&all)
        unsafe sigemptyset(&none)
        unsafe posix_spawnattr_setsigdefault(&attributes, &all)
        unsafe posix_spawnattr_setsigmask(&attributes, &none)
        var flags = Int16(POSIX_SPAWN_SETSIGDEF) | Int16(POSIX_SPAWN_SETSIGMASK)
        if newSession { flags |= MINGLE_SPAWN_SETSID }
        unsafe posix_spawnattr_setflags(&attributes, flags)

        var strings = unsafe ([name] + arguments).map { unsafe strdup($0) }
        unsafe strings.append(nil)
        defer { unsafe strings.forEach { unsafe free($0) } }

        var environment: [UnsafeMutablePointer<CChar>?] = unsafe [nil]
        var child: pid_t = 0
        // SAFETY: both lists end with NULL and outlive the call.
        let error = unsafe posix_spawn(&child, path, &actions, &attributes, &strings, &environment)
        guard error == 0 else { throw LinuxError(operation: "posix_spawn", code: error, subject: path) }
        return child
    }

    /// How a child ended: nil when it has not.
    package enum Ending: Equatable {
        case exited(Int32)
        case killed(Int32)
    }

    package static func collect(_ child: Int32, wait: Bool) -> Ending? {
        var status: Int32 = 0
        while true {
            // SAFETY: a live local.
            let result = unsafe waitpid(child, &status, wait ? 0 : WNOHANG)
            if result < 0, errno == EINTR { continue }
            if result < 0 { return .exited(255) }
            guard result == child else { return nil }
            return status & 0x7f == 0 ? .exited((status >> 8) & 0xff) : .killed(status & 0x7f)
        }
    }

    /// To a child that was not collected yet, whose number is therefore its own.
    package static func send(_ signal: Int32, to process: Int32) {
        // 0 and negative numbers mean groups of processes.
        if process > 0 { _ = kill(process, signal) }
    }

    /// Blocks signals, so that ``nextSignal(_:milliseconds:)`` gets them.
    package static func block(_ signals: [Int32]) {
        var set = set(of: signals)
        // SAFETY: a live local.
        _ = unsafe sigprocmask(SIG_BLOCK, &set, nil)
    }

    /// Waits for one of these signals; nil when the time is over.
    package static func nextSignal(_ signals: [Int32], milliseconds: Int) -> Int32? {
        var set = set(of: signals)
        var time = timespec(tv_sec: milliseconds / 1000, tv_nsec: milliseconds % 1000 * 1_000_000)
        // SAFETY: live locals.
        let signal = unsafe sigtimedwait(&set, nil, &time)
        return signal > 0 ? signal : nil
    }

    private static func set(of signals: [Int32]) -> sigset_t {
        var set = sigset_t()
        // SAFETY: a live local.
        unsafe sigemptyset(&set)
        for signal in signals { unsafe sigaddset(&set, signal) }
        return set
    }

    /// No core dumps, no debugger of the same user, files for the owner alone, nothing gained by exec.
    package static func harden() {
        _ = mingle_prctl(PR_SET_DUMPABLE, 0)
        _ = mingle_prctl(PR_SET_NO_NEW_PRIVS, 1)
        // Started through /proc/self/exe, it would be called "exe".
        // SAFETY: NUL-terminated for the time of the call; the kernel copies it.
        _ = unsafe "mingle-broker".withCString { mingle_prctl(PR_SET_NAME, UInt(bitPattern: $0)) }
        _ = umask(0o077)
        ProcessLimit.ignoreFileSizeSignal()
        // SAFETY: a constant, NUL-terminated.
        _ = unsafe chdir("/")
    }

    /// Takes a descriptor that whoever started this process handed down.
    package static func inherited(_ number: Int32) -> OwnedDescriptor {
        _ = mingle_fcntl(number, F_SETFD, FD_CLOEXEC)
        return OwnedDescriptor(adopting: number)
    }

    /// Children that end are collected by the kernel, and nothing is told of them.
    package static func forgetChildren() { signal(SIGCHLD, SIG_IGN) }

    /// Becomes readable when one of these signals, which are blocked, is pending.
    package static func signalDescriptor(_ signals: [Int32]) throws(LinuxError) -> OwnedDescriptor {
        var set = set(of: signals)
        // SAFETY: a live local.
        let number = unsafe signalfd(-1, &set, Int32(SFD_CLOEXEC) | Int32(SFD_NONBLOCK))
        guard number >= 0 else { throw .current("signalfd") }
        return OwnedDescriptor(adopting: number)
    }

    /// Raises the limit of descriptors as far as allowed.
    /// - Returns: the limit.
    package static func raiseDescriptorLimit() -> Int {
        var limit = rlimit()
        let resource = Int32(RLIMIT_NOFILE.rawValue)
        // SAFETY: a live local.
        guard unsafe getrlimit(resource, &limit) == 0 else { return 256 }
        limit.rlim_cur = limit.rlim_max
        _ = unsafe setrlimit(resource, &limit)
        return Int(clamping: limit.rlim_cur)
    }

    package static var number: Int32 { getpid() }

    /// Says why this process cannot go on, on standard error.
    package static func say(_ text: String) {
        let line = Array((text + "\n").utf8)
        // SAFETY: the array is alive for the call.
        _ = unsafe write(2, line, line.count)
    }

    /// Closes what whoever started the starter had open, a lock or a pipe perhaps: every descriptor from `first` on.
    package static func closeInherited(from first: Int32) { _ = mingle_close_from(first) }

    /// Closes what whoever started this process had open, standard streams apart: all that is not close-on-exec, since all that this
    /// process opens is. For who has no use for it, and has opened what it was named of it.
    package static func closeInherited() {
        // SAFETY: the path is a constant; the stream is closed below and used by this thread alone, and an entry is read before
        // the next call replaces it.
        guard let stream = unsafe opendir("/proc/self/fd") else { return }
        var inherited: [Int32] = []
        while let entry = unsafe readdir(stream) {
            let name = unsafe withUnsafeBytes(of: &entry.pointee.d_name) { bytes in
                unsafe String(decoding: bytes.prefix { $0 != 0 }, as: UTF8.self)
            }
            guard let number = Int32(name), number > 2 else { continue }
            let flags = mingle_fcntl(number, F_GETFD, 0)
            if flags >= 0, flags & FD_CLOEXEC == 0 { inherited.append(number) }
        }
        unsafe closedir(stream)
        for number in inherited { _ = close(number) }
    }

    /// Lets go of standard error: whoever reads it learns that nothing more will be said.
    package static func detachErrors() { _ = dup2(0, 2) }
}

/// What a child says on its standard error, for its parent.
package struct ErrorPipe: ~Copyable {
    private let input: OwnedDescriptor
    private var output: OwnedDescriptor?

    package init() throws(LinuxError) {
        var ends: [Int32] = [-1, -1]
        // SAFETY: an array of two, alive for the call.
        try checked(unsafe mingle_pipe(&ends), "pipe")
        input = OwnedDescriptor(adopting: ends[0])
        output = OwnedDescriptor(adopting: ends[1])
    }

    /// For ``HostProcess``'s spawn.
    package var childEnd: Int32 {
        switch output {
        case .some(let output): output.number
        case .none: -1
        }
    }

    /// Reads until every child that has the other end let go of it, or the time is over.
    package mutating func readAll(milliseconds: Int) -> String {
        output = nil
        let deadline = monotonicNanoseconds() + UInt64(milliseconds) * 1_000_000
        var bytes: [UInt8] = []
        var buffer = [UInt8](repeating: 0, count: 1024)
        while bytes.count < 4096 {
            let now = monotonicNanoseconds()
            guard now < deadline else { break }
            let ready = PollList.events(
                of: input.number, Int16(POLLIN),
                milliseconds: Int32(clamping: (deadline - now) / 1_000_000 + 1))
            guard ready != 0 else { continue }
            // SAFETY: the buffer is as long as said.
            let count = unsafe read(input.number, &buffer, buffer.count)
            if count < 0, errno == EINTR { continue }
            guard count > 0 else { break }
            bytes += buffer[..<count]
        }
        return String(decoding: bytes, as: UTF8.self).split(separator: "\n").joined(separator: "; ")
    }
}

/// Waiting without doing.
package enum Pause {
    package static func sleep(nanoseconds: UInt64) {
        var time = timespec(
            tv_sec: Int(nanoseconds / 1_000_000_000), tv_nsec: Int(nanoseconds % 1_000_000_000))
        var left = timespec()
        // SAFETY: live locals; an interrupted sleep goes on with what is left.
        while unsafe nanosleep(&time, &left) != 0, errno == EINTR { time = left }
    }
}
