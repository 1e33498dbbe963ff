import CLinux
import Glibc
import GuestMemory

/// The system calls of the console loop: typed and checked, nothing unsafe above this file and its neighbours.
enum HostIO {
    /// What poll(2) found.
    struct Ready: OptionSet {
        let rawValue: Int16
        static let input = Ready(rawValue: Int16(POLLIN))
        static let output = Ready(rawValue: Int16(POLLOUT))
        static let urgent = Ready(rawValue: Int16(POLLPRI))
        /// Error or hang-up; also reported unasked.
        static let broken = Ready(rawValue: Int16(POLLERR | POLLHUP | POLLNVAL))
    }

    /// Waits for any of the descriptors; an interrupted wait is an empty answer.
    /// - Parameter timeout: milliseconds; nil waits for ever.
    static func poll(_ wanted: [(descriptor: Int32, events: Ready)], timeout: Int32?) -> [Ready] {
        var list = wanted.map { pollfd(fd: $0.descriptor, events: $0.events.rawValue, revents: 0) }
        // SAFETY: the array is alive for the call and as long as said.
        let count = unsafe Glibc.poll(&list, nfds_t(list.count), timeout ?? -1)
        return list.map { Ready(rawValue: count > 0 ? $0.revents : 0) }
    }

    enum ReadResult: Equatable {
        case bytes([UInt8])
        case endOfFile
        case nothing
    }

    /// One read of up to `limit` bytes.
    static func read(_ descriptor: Int32, limit: Int) -> ReadResult {
        var buffer = [UInt8](repeating: 0, count: limit)
        // SAFETY: the array is `limit` bytes long.
        let count = unsafe Glibc.read(descriptor, &buffer, limit)
        if count > 0 { return .bytes(Array(buffer[..<count])) }
        if count < 0, errno == EINTR || errno == EAGAIN { return .nothing }
        return .endOfFile
    }

    /// One write.
    /// - Returns: how many bytes went; 0 when it must be tried again; nil when nobody will ever read.
    static func write(_ descriptor: Int32, _ bytes: ArraySlice<UInt8>) -> Int? {
        let count = unsafe bytes.withUnsafeBytes { buffer in
            // SAFETY: the buffer is alive for the call.
            unsafe Glibc.write(descriptor, buffer.baseAddress, buffer.count)
        }
        if count >= 0 { return count }
        return errno == EINTR || errno == EAGAIN ? 0 : nil
    }

    /// Writes everything, blocking; gives up on an error. For messages and reports.
    static func writeAll(_ descriptor: Int32, _ text: String) {
        var rest = Array(text.utf8)[...]
        while !rest.isEmpty {
            guard let count = write(descriptor, rest) else { return }
            rest = rest.dropFirst(count)
        }
    }

    /// Blocks the signals that end us in every thread and makes them readable; the pipe signal is ignored, as are those
    /// that would stop a background job for looking at its terminal.
    static func signals(_ numbers: [Int32]) throws(LinuxError) -> OwnedDescriptor {
        var set = sigset_t()
        // SAFETY: a live local; signal dispositions are process-wide and set before there are threads.
        unsafe sigemptyset(&set)
        for number in numbers { unsafe sigaddset(&set, number) }
        guard unsafe sigprocmask(SIG_SETMASK, &set, nil) == 0 else { throw .current("sigprocmask") }
        for ignored in [SIGPIPE, SIGTTIN, SIGTTOU] { signal(ignored, SIG_IGN) }
        let descriptor = unsafe signalfd(-1, &set, Int32(SFD_CLOEXEC) | Int32(SFD_NONBLOCK))
        guard descriptor >= 0 else { throw .current("signalfd") }
        return OwnedDescriptor(adopting: descriptor)
    }

    /// The number of one pending signal, or nil.
    static func nextSignal(_ descriptor: borrowing OwnedDescriptor) -> Int32? {
        var info = signalfd_siginfo()
        // SAFETY: a live local of the size given.
        let count = unsafe Glibc.read(descriptor.number, &info, MemoryLayout<signalfd_siginfo>.size)
        return count == MemoryLayout<signalfd_siginfo>.size ? Int32(info.ssi_signo) : nil
    }

    /// Removes a name from a directory, if it is there.
    static func remove(_ path: String) { _ = unsafe unlink(path) }

    /// Ends this process when the one that started it ends.
    static func dieWithParent() {
        _ = mingle_die_with_parent(SIGTERM)
    }

    /// Keeps the C library from making an arena for each thread: they cost more than this program's heap. What loading the
    /// guest takes goes back to the host at once; see ``HeapReserve`` for the time after that.
    static func useOneArena() {
        // M_ARENA_MAX, M_TRIM_THRESHOLD (malloc.h)
        _ = mallopt(-8, 1)
        _ = mallopt(-1, 64 << 10)
    }
}
