import CLinux
import Glibc

/// The system calls of the console loop: typed and checked, nothing unsafe above this file and its neighbours.
package enum HostIO {
    package enum ReadResult: Equatable {
        case bytes([UInt8])
        case endOfFile
        case nothing
    }

    /// One read of up to `limit` bytes.
    package static func read(_ descriptor: Int32, limit: Int) -> ReadResult {
        var buffer = [UInt8](repeating: 0, count: limit)
        // SAFETY: the array is `limit` bytes long.
        let count = unsafe Glibc.read(descriptor, &buffer, limit)
        if count > 0 { return .bytes(Array(buffer[..<count])) }
        if count < 0, errno == EINTR || errno == EAGAIN { return .nothing }
        return .endOfFile
    }

    /// Writes a message to standard error. If nobody takes it within a second, it is not worth waiting for.
    package static func tell(_ text: String) {
        let deadline = monotonicNanoseconds() + 1_000_000_000
        var rest = Array(text.utf8)[...]
        while !rest.isEmpty {
            guard monotonicNanoseconds() < deadline, PollList.isReady(2, .output, until: deadline) else {
                return
            }
            // A pipe with room takes a page without waiting.
            switch OutputFile.write(rest.prefix(4096), to: 2) {
            case .bytes(let count): rest = rest.dropFirst(count)
            case .full: continue
            case .failed: return
            }
        }
    }

    /// Blocks the signals that end or stop us in every thread and makes them readable. Those for a reader that is gone and for a
    /// file that is too long are ignored, as are those that would stop a background job for looking at its terminal.
    package static func signals(_ numbers: [Int32]) throws(LinuxError) -> OwnedDescriptor {
        var set = sigset_t()
        // SAFETY: a live local; signal dispositions are process-wide and set before there are threads.
        unsafe sigemptyset(&set)
        for number in numbers { unsafe sigaddset(&set, number) }
        guard unsafe sigprocmask(SIG_SETMASK, &set, nil) == 0 else { throw .current("sigprocmask") }
        for ignored in [SIGPIPE, SIGXFSZ, SIGTTIN, SIGTTOU] { signal(ignored, SIG_IGN) }
        let descriptor = unsafe signalfd(-1, &set, Int32(SFD_CLOEXEC) | Int32(SFD_NONBLOCK))
        guard descriptor >= 0 else { throw .current("signalfd") }
        return OwnedDescriptor(adopting: descriptor)
    }

    /// The number of one pending signal, or nil.
    package static func nextSignal(_ descriptor: borrowing OwnedDescriptor) -> Int32? {
        var info = signalfd_siginfo()
        // SAFETY: a live local of the size given.
        let count = unsafe Glibc.read(descriptor.number, &info, MemoryLayout<signalfd_siginfo>.size)
        return count == MemoryLayout<signalfd_siginfo>.size ? Int32(info.ssi_signo) : nil
    }

    /// Stops this process as the terminal's stop key would, until somebody continues it.
    package static func stopProcess() {
        var set = sigset_t()
        // SAFETY: a live local. The signal was taken from a signalfd; its default action happens when it is sent again and let
        // through. Where no shell could continue us (an orphaned process group) the kernel ignores it.
        unsafe sigemptyset(&set)
        unsafe sigaddset(&set, SIGTSTP)
        raise(SIGTSTP)
        unsafe pthread_sigmask(SIG_UNBLOCK, &set, nil)
        unsafe pthread_sigmask(SIG_BLOCK, &set, nil)
    }

    /// As poll(2) wants it.
    package static func milliseconds(until time: UInt64) -> Int32 {
        let now = monotonicNanoseconds()
        return time <= now ? 0 : Int32(clamping: (time - now) / 1_000_000 + 1)
    }

    /// The lines of a file of /proc. Takes memory: not for what goes on while a guest is at its limits.
    package static func lines(_ path: String) throws(LinuxError) -> [Substring] {
        let file = try OwnedDescriptor.open(path, flags: O_RDONLY)
        var bytes: [UInt8] = []
        while true {
            let part = try file.read(count: 65536, at: UInt64(bytes.count))
            if part.isEmpty { break }
            bytes += part
        }
        return String(decoding: bytes, as: UTF8.self).split(separator: "\n")
    }

    /// Removes a socket from a directory, if it is there; anything else stays. A confined process removes nothing.
    package static func removeSocket(_ path: String) {
        if PathAccess.isOver { return }
        var status = stat()
        // SAFETY: a live local; the path is a NUL-terminated copy.
        guard unsafe lstat(path, &status) == 0, status.st_mode & S_IFMT == S_IFSOCK else { return }
        _ = unsafe unlink(path)
    }

    /// Ends this process when the one that started it ends.
    package static func dieWithParent() {
        _ = mingle_die_with_parent(SIGTERM)
    }

    /// Keeps the C library from making an arena for each thread: they cost more than this program's heap. What loading the
    /// guest takes goes back to the host at once; see ``HeapReserve`` for the time after that.
    package static func useOneArena() {
        // M_ARENA_MAX, M_TRIM_THRESHOLD (malloc.h)
        _ = mallopt(-8, 1)
        _ = mallopt(-1, 64 << 10)
    }
}
