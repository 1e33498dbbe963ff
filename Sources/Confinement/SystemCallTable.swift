internal import CLinux

/// What every kind of thread of a confined VMM may ask the kernel for: the one table. docs/confinement.md says how to read and
/// how to extend it. What is asked for often stands first: a filter compares in this order.
///
/// No row opens, names or changes anything by a path, connects, makes a process or a thread, or makes memory executable.
public enum SystemCallTable {
    private static let everyone = ThreadKind.allCases
    /// Those that live as long as the guest does.
    private static let lasting: [ThreadKind] = [.main, .vcpu, .sharing]
    private static let workers: [ThreadKind] = [.main, .sharing]

    public static let rules: [SystemCallRule] = [
        // ---- the guest, and KVM
        SystemCallRule(
            .ioctl, [.vcpu], [.isOne(of: Requests.processor, argument: 1)],
            "runs the guest; interrupt lines of devices; what a vCPU says of itself when the guest fails"),
        SystemCallRule(
            .ioctl, [.main], [.isOne(of: Requests.loading + Requests.inspection, argument: 1)],
            "sets vCPUs to the guest's entry; interrupt lines; `debug` tells what vCPUs are at"),
        SystemCallRule(
            .ioctl, [.main], [.isOne(of: Requests.terminal, argument: 1)],
            "the terminal on standard input: whose it is, raw mode and back"),
        SystemCallRule(
            .ioctl, [.sharing], [.isOne(of: Requests.sharing, argument: 1)],
            "the dirty log, and write protection of guest memory"),
        SystemCallRule(
            .ioctl, [.prices], [.isOne(of: Requests.prices, argument: 1)],
            "makes and runs the small guest that measures"),
        // ---- waiting for each other
        SystemCallRule(.futex, everyone, "locks and conditions"),
        SystemCallRule(.poll, workers, "waits for descriptors; standard error that somebody is slow to read"),
        SystemCallRule(
            .poll, [.vcpu, .prices], "a message on standard error waits for room",
            rare: "those threads say nothing unless the host fails them"),
        SystemCallRule(.sched_yield, [.sharing], "a window begins with a fresh time slice"),
        SystemCallRule(
            .clock_nanosleep, [.main, .sharing], "short pauses",
            rare: "between attempts that are only needed while somebody else is slow"),
        SystemCallRule(
            .restart_syscall, everyone, "the kernel goes on with a wait that a stop signal interrupted",
            rare: "the kernel asks for it, and strace does not always show it"),
        SystemCallRule(
            .clock_gettime, everyone, "time, where the kernel gives it to no process without a call",
            rare: "CPU time of a thread needs it; else only hosts without a usable time stamp counter do"),
        // ---- bytes
        SystemCallRule(.write, everyone, "output, events, messages"),
        SystemCallRule(.read, [.main], "input, signals, events"),
        SystemCallRule(
            .pread64, workers,
            "kernel and RAM disk; frames of the store; files of /proc that were opened before"),
        SystemCallRule(.pread64, [.vcpu], "files of /proc that were opened before"),
        SystemCallRule(.pwrite64, [.main], "the guest's record, the terminal's"),
        SystemCallRule(.pwrite64, [.sharing], "the bytes of pages that go home"),
        SystemCallRule(.lseek, workers, "where guest memory has pages"),
        SystemCallRule(.fstat, workers, "how large a file is, and how much memory it takes"),
        SystemCallRule(
            .ftruncate, [.main], "the report's length; the terminal's record when it is given back"),
        SystemCallRule(.ftruncate, [.sharing], "the staging area of a connection to a broker"),
        SystemCallRule(
            .fallocate, [.sharing],
            [.isOne(of: [UInt32(FALLOC_FL_KEEP_SIZE | FALLOC_FL_PUNCH_HOLE)], argument: 1)],
            "gives the memory of pages back that were merged"),
        SystemCallRule(
            .fallocate, [.main],
            [.isOne(of: [UInt32(FALLOC_FL_KEEP_SIZE | FALLOC_FL_PUNCH_HOLE)], argument: 1)],
            "gives the guest's memory back while its last output waits for a reader"),
        SystemCallRule(
            .fallocate, [.main], [.isOne(of: [UInt32(FALLOC_FL_KEEP_SIZE)], argument: 1)],
            "has room for the report before the old one is changed"),
        SystemCallRule(.fsync, [.main], "the report has arrived on the disk"),
        SystemCallRule(.close, everyone, "descriptors that came by the control socket, files that were read"),
        SystemCallRule(.flock, [.main], "the terminal's record says whether its owner lives"),
        SystemCallRule(
            .memfd_create, [.sharing],
            [.isOne(of: [UInt32(MFD_CLOEXEC) | UInt32(MFD_ALLOW_SEALING)], argument: 1)],
            "the staging area of a connection to a broker"),
        SystemCallRule(
            .memfd_create, [.prices],
            [.isOne(of: [UInt32(MFD_CLOEXEC) | UInt32(MFD_ALLOW_SEALING)], argument: 1)],
            "the memory of the small guest"),
        SystemCallRule(.ftruncate, [.prices], "the memory of the small guest"),
        SystemCallRule(
            .fcntl, [.sharing, .prices], [.isOne(of: [1033, 1034], argument: 1)],
            "F_ADD_SEALS, F_GET_SEALS: memory files that cannot shrink"),
        // ---- sockets that are connected already
        SystemCallRule(.recvmsg, workers, "commands; the broker's answers"),
        SystemCallRule(.sendmsg, workers, "answers to commands; questions to the broker"),
        SystemCallRule(.accept4, [.main], "who connects to the control socket"),
        SystemCallRule(
            .getsockopt, [.main], [.isOne(of: [1], argument: 1), .isOne(of: [17], argument: 2)],
            "SO_PEERCRED: whether a broker that somebody offers is of this user"),
        SystemCallRule(.sendto, [.main], [.isNull(argument: 4)], "standard output that is a socket"),
        // ---- memory
        SystemCallRule(
            .mmap, everyone, [.lacks(bits: UInt32(PROT_EXEC), argument: 2)],
            "heap; mappings of frames; never executable"),
        SystemCallRule(.munmap, everyone, "heap, stacks of threads that ended"),
        SystemCallRule(.madvise, everyone, "gives memory back that is free"),
        SystemCallRule(.brk, everyone, "heap"),
        SystemCallRule(.mremap, [.sharing], "puts a stretch of mappings in place of another"),
        SystemCallRule(
            .mremap, [.main], "a list of digests grows",
            rare: "only the heap of a guest without sharing does so"),
        SystemCallRule(
            .mincore, [.sharing], "whether guest memory is there after a call that failed"),
        SystemCallRule(
            .process_vm_readv, [.sharing], [.isThisProcess(argument: 0)],
            "looks at this process's own memory where it may be gone"),
        SystemCallRule(
            .prlimit64, workers, [.isNull(argument: 2)], "limits of address space and files; never sets one"),
        // ---- signals and the end
        SystemCallRule(
            .tgkill, lasting, [.isThisProcess(argument: 0)],
            "makes vCPUs leave the guest; stops this process as the terminal's key asks; abort"),
        SystemCallRule(.getpid, lasting, "who this is: signals to itself"),
        SystemCallRule(.gettid, everyone, "who this is: locks that know their owner"),
        SystemCallRule(.getpgrp, [.main], "whether the terminal is ours"),
        SystemCallRule(.rt_sigprocmask, everyone, "lets the stop signal through; ends a thread; abort"),
        SystemCallRule(.rt_sigreturn, [.vcpu], "back from the signal that makes a vCPU leave the guest"),
        SystemCallRule(
            .getrandom, everyone, "seeds of hash tables",
            rare: "the first table of the process asks, wherever"),
        SystemCallRule(.exit, [.vcpu, .sharing, .prices], "the end of a thread"),
        SystemCallRule(.exit_group, everyone, "the end of the process"),
    ]

    /// Those of one kind of thread, in order.
    public static func rules(of kind: ThreadKind) -> [SystemCallRule] {
        rules.filter { $0.kinds.contains(kind) }
    }

    /// How many different calls a kind of thread may make.
    public static func count(of kind: ThreadKind) -> Int { Set(rules(of: kind).map(\.call)).count }
}
