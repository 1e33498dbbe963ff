internal import CLinux
internal import Glibc

/// Starting processes, waiting for them, and what a process makes of itself.
package enum HostProcess {
    package static let ownExecutable = "/proc/self/exe"

    /// Starts a program with an empty environment, no signal blocked or ignored, and /dev/null as its standard streams.
    /// - Parameters:
    ///   - name: what the program finds as its own name.
    ///   - errors: what takes the place of its standard error.
    ///   - inherited: become the child's descriptors from 3 on; everything else is close-on-exec.
    ///   - leads: whose leader the child is.
    package static func spawn(
        _ path: String, _ arguments: [String], name: String = "mingle-broker",
        errors: ChildProgram.Stream = .nothing, inherited: [Int32] = [], leads: ChildProgram.Leads = .nothing
    ) throws(LinuxError) -> Int32 {
        var program = ChildProgram(path, arguments, name: name)
        program.streams = [.nothing, .nothing, errors] + inherited.map { .descriptor($0) }
        program.leads = leads
        return try program.start()
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
