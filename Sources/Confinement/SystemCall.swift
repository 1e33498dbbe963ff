/// The system calls that a filter allows, by their names and numbers on x86_64 (arch/x86/entry/syscalls/syscall_64.tbl).
public enum SystemCallName: UInt32, CaseIterable, Sendable {
    case read = 0
    case write = 1
    case close = 3
    case fstat = 5
    case poll = 7
    case lseek = 8
    case mmap = 9
    case munmap = 11
    case brk = 12
    case rt_sigprocmask = 14
    case rt_sigreturn = 15
    case ioctl = 16
    case pread64 = 17
    case pwrite64 = 18
    case sched_yield = 24
    case mremap = 25
    case mincore = 27
    case madvise = 28
    case getpid = 39
    case sendto = 44
    case sendmsg = 46
    case recvmsg = 47
    case getsockopt = 55
    case exit = 60
    case fcntl = 72
    case flock = 73
    case fsync = 74
    case ftruncate = 77
    case getpgrp = 111
    case gettid = 186
    case futex = 202
    case restart_syscall = 219
    case clock_gettime = 228
    case clock_nanosleep = 230
    case exit_group = 231
    case epoll_wait = 232
    case epoll_ctl = 233
    case tgkill = 234
    case fallocate = 285
    case accept4 = 288
    case prlimit64 = 302
    case process_vm_readv = 310
    case getrandom = 318
    case memfd_create = 319
}

/// What has to be true of an argument for a call to be allowed. Arguments count from 0.
///
/// The kernel takes most arguments for 32 bits and drops the others, so the lower half is what is looked at, but where a pointer is
/// to be absent.
public enum ArgumentCheck: Equatable, Sendable {
    /// The lower 32 bits are one of these.
    case isOne(of: [UInt32], argument: Int)
    /// None of these bits is set.
    case lacks(bits: UInt32, argument: Int)
    /// A pointer that is NULL.
    case isNull(argument: Int)
    /// The number of this process.
    case isThisProcess(argument: Int)
}

/// One row of the table: a call, who may make it, with which arguments, and what for.
public struct SystemCallRule: Sendable {
    public let call: SystemCallName
    public let kinds: [ThreadKind]
    /// All must hold. Another row of the same call and kind is another way to be allowed.
    public let checks: [ArgumentCheck]
    /// What the call is needed for.
    public let reason: String
    /// Why no test makes the call; nil when one does.
    public let isRare: String?

    init(
        _ call: SystemCallName, _ kinds: [ThreadKind], _ checks: [ArgumentCheck], _ reason: String,
        rare: String? = nil
    ) {
        self.call = call
        self.kinds = kinds
        self.checks = checks
        self.reason = reason
        isRare = rare
    }

    init(_ call: SystemCallName, _ kinds: [ThreadKind], _ reason: String, rare: String? = nil) {
        self.init(call, kinds, [], reason, rare: rare)
    }
}
