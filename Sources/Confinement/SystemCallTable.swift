internal import CLinux

/// What every kind of thread of a confined VMM may ask the kernel for: the one table. docs/confinement.md says how to read and
/// how to extend it.
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
        SystemCallRule(.epoll_wait, [.main], "waits for descriptors"),
        SystemCallRule(.epoll_ctl, [.main], "says which descriptors, and for what"),
        SystemCallRule(
            .poll, workers, "waits for one descriptor: the broker's answer, standard error that is slow"),
        SystemCallRule(.sched_yield, [.sharing], "a window begins with a fresh time slice"),
        SystemCallRule(
            .clock_nanosleep, workers, "short pauses",
            rare: "between attempts that are only needed while somebody else is slow"),
        SystemCallRule(
            .restart_syscall, everyone, "the kernel goes on with a wait that a stop signal interrupted",
            rare: "the kernel makes it when a process is continued"),
        SystemCallRule(
            .clock_gettime, everyone,
            "CPU time of a thread; the time, where the kernel gives it in no other way",
            rare: "most hosts give the time without a call"),
        // ---- bytes
        SystemCallRule(.write, lasting, "output, events, messages"),
        SystemCallRule(
            .write, [.prices], "the last words of the runtime", rare: "only a fault of ours makes it speak"),
        SystemCallRule(.read, [.main], "input, signals, events"),
        SystemCallRule(
            .pread64, workers,
            "kernel and RAM disk; frames of the store; files of /proc that were opened before"),
        SystemCallRule(.pwrite64, [.main], "the guest's record, the terminal's"),
        SystemCallRule(.pwrite64, [.sharing], "the bytes of pages that go home"),
        SystemCallRule(.lseek, workers, "where guest memory has pages"),
        SystemCallRule(.fstat, [.main], "how large a file is, and how much memory it takes"),
        SystemCallRule(
            .ftruncate, [.main], "the report's length; the terminal's record when it is given back"),
        SystemCallRule(
            .ftruncate, [.sharing, .prices], "the staging area of a connection; the small guest's memory"),
        SystemCallRule(
            .fallocate, workers,
            [.isOne(of: [UInt32(FALLOC_FL_KEEP_SIZE | FALLOC_FL_PUNCH_HOLE)], argument: 1)],
            "gives back the memory of merged pages; of a guest that has ended and whose reader is slow"),
        SystemCallRule(
            .fallocate, [.main], [.isOne(of: [UInt32(FALLOC_FL_KEEP_SIZE)], argument: 1)],
            "has room for the report before the old one is changed"),
        SystemCallRule(.fsync, [.main], "the report has arrived on the disk"),
        SystemCallRule(
            .close, [.main, .sharing, .prices],
            "images that were read; what came by sockets; the small guest"),
        SystemCallRule(.flock, [.main], "the terminal's record says whether its owner lives"),
        SystemCallRule(
            .memfd_create, [.sharing, .prices],
            [.isOne(of: [UInt32(MFD_CLOEXEC) | UInt32(MFD_ALLOW_SEALING)], argument: 1)],
            "the staging area of a connection to a broker; the small guest's memory"),
        SystemCallRule(
            .fcntl, [.sharing], [.isOne(of: [1033], argument: 1)],
            "F_ADD_SEALS: a staging area that cannot shrink"),
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
            .mmap, [.main, .sharing, .prices], [.lacks(bits: UInt32(PROT_EXEC), argument: 2)],
            "heap, mappings of frames, the small guest; never executable"),
        SystemCallRule(
            .mmap, [.vcpu], [.lacks(bits: UInt32(PROT_EXEC), argument: 2)], "heap; never executable",
            rare: "what a vCPU allocates fits, unless it tells at length how its guest failed"),
        SystemCallRule(
            .munmap, [.main, .sharing, .prices], "heap, stacks of threads that ended, the small guest"),
        SystemCallRule(.munmap, [.vcpu], "heap", rare: "as mmap"),
        SystemCallRule(
            .madvise, everyone, [.isOne(of: Advice.all, argument: 2)],
            "gives memory back that is free; the stack of a thread that ends; what new mappings need said again"
        ),
        SystemCallRule(.brk, [.main], "heap"),
        SystemCallRule(
            .brk, [.vcpu, .sharing, .prices], "heap",
            rare: "whichever thread needs more than there is asks; a reserve is made before"),
        SystemCallRule(.mremap, [.sharing], "puts a stretch of mappings in place of another"),
        SystemCallRule(
            .mremap, [.main], "a list of digests grows",
            rare: "only the heap of a guest without sharing, and with much memory, does so"),
        SystemCallRule(
            .mincore, [.sharing], "whether guest memory is there after a call that failed",
            rare: "where a mapping failed at the moment of the remap (faults on purpose show it, not always)"),
        SystemCallRule(
            .process_vm_readv, [.sharing], [.isThisProcess(argument: 0)],
            "looks at this process's own memory where it may be gone",
            rare: "where a mapping failed, and no userfaultfd tells whose the place is (LinuxEdgeTests)"),
        SystemCallRule(
            .prlimit64, [.sharing], [.isNull(argument: 2)], "limits of address space; never sets one"),
        SystemCallRule(
            .prlimit64, [.main], [.isNull(argument: 2)], "an error's words name a limit; never sets one",
            rare: "at a limit of open files or of their size"),
        // ---- signals and the end
        SystemCallRule(
            .tgkill, workers, [.isThisProcess(argument: 0)],
            "makes vCPUs leave the guest; stops this process as the terminal's key asks"),
        SystemCallRule(
            .tgkill, [.vcpu], [.isThisProcess(argument: 0)], "abort of the C library",
            rare: "only a fault of ours"),
        SystemCallRule(.getpid, workers, "who this is: signals to itself"),
        SystemCallRule(.getpid, [.vcpu], "abort of the C library", rare: "only a fault of ours"),
        SystemCallRule(.gettid, lasting, "who this is: locks that know their owner"),
        SystemCallRule(
            .gettid, [.prices], "locks that know their owner", rare: "only when somebody waits for one"),
        SystemCallRule(.getpgrp, [.main], "whether the terminal is ours"),
        SystemCallRule(.rt_sigprocmask, everyone, "lets the stop signal through; ends a thread; abort"),
        SystemCallRule(.rt_sigreturn, [.vcpu], "back from the signal that makes a vCPU leave the guest"),
        SystemCallRule(
            .getrandom, everyone,
            "seeds of hash tables; on the main thread also what the entropy device hands out",
            rare:
                "the first table of the process asks, and may be there before; Linux guests alone have that device"
        ),
        SystemCallRule(.exit, [.vcpu, .sharing, .prices], "the end of a thread"),
        SystemCallRule(.exit_group, [.main], "the end of the process"),
        SystemCallRule(
            .exit_group, [.vcpu, .sharing, .prices], "the end of the process", rare: "a call was refused"),
    ]

    /// Those of one kind of thread, in order.
    public static func rules(of kind: ThreadKind) -> [SystemCallRule] {
        rules.filter { $0.kinds.contains(kind) }
    }

    /// How many different calls a kind of thread may make.
    public static func count(of kind: ThreadKind) -> Int { Set(rules(of: kind).map(\.call)).count }
}
