#if DEBUG
    import CLinux
    import Confinement
    import Glibc
    import LinuxHost

    /// What a guest that took over its VMM would try: made on purpose, so that tests see each attempt fail. There is no trace of it in
    /// release builds.
    struct Attempt {
        /// By name: the system call's number and arguments. What needs a path gets /proc/self/status.
        private static let calls: [String: [Int]] = [
            "open": [Int(SYS_openat), -100, path, Int(O_RDONLY)],
            "create": [Int(SYS_openat), -100, path, Int(O_CREAT | O_RDWR), 0o600],
            "open-old": [Int(SYS_open), path, Int(O_RDONLY)],
            "open-handle": [Int(SYS_open_by_handle_at), -100, 0, 0],
            // The store and the guest's memory are memory files: changing the mode of any descriptor is what has to fail.
            "fchmod": [Int(SYS_fchmod), 0, 0o777],
            "chmod": [Int(SYS_chmod), path, 0o777],
            "fchmodat": [Int(SYS_fchmodat), -100, path, 0o777],
            "unlink": [Int(SYS_unlinkat), -100, path, 0],
            "rename": [Int(SYS_renameat2), -100, path, -100, path, 0],
            "link": [Int(SYS_linkat), -100, path, -100, path, 0],
            "stat": [Int(SYS_newfstatat), -100, path, 0, 0],
            "readlink": [Int(SYS_readlinkat), -100, path, 0, 0],
            "getdents": [Int(SYS_getdents64), 0, 0, 0],
            "ptrace": [Int(SYS_ptrace), 16, 1, 0, 0],
            "others-memory": [Int(SYS_process_vm_readv), 1, 0, 0, 0, 0, 0],
            "others-files": [Int(SYS_pidfd_getfd), 0, 0, 0],
            "pidfd": [Int(SYS_pidfd_open), 1, 0],
            "kill": [Int(SYS_kill), 1, 0],
            "kill-other": [Int(SYS_tgkill), 1, 1, 0],
            "socket": [Int(SYS_socket), 2, 1, 0],
            "connect": [Int(SYS_connect), 0, path, 16],
            "bind": [Int(SYS_bind), 0, path, 16],
            "exec": [Int(SYS_execve), path, 0, 0],
            "execat": [Int(SYS_execveat), -100, path, 0, 0, 0],
            "fork": [Int(SYS_fork)],
            "clone": [Int(SYS_clone), Int(SIGCHLD), 0, 0, 0, 0],
            "clone3": [Int(SYS_clone3), 0, 0],
            "executable": [
                Int(SYS_mmap), 0, 4096, Int(PROT_READ | PROT_EXEC), Int(MAP_PRIVATE | MAP_ANONYMOUS), -1, 0,
            ],
            "mprotect": [Int(SYS_mprotect), 0, 4096, Int(PROT_READ | PROT_EXEC)],
            "io_uring": [Int(SYS_io_uring_setup), 4, 0],
            "terminal-input": [Int(SYS_ioctl), 0, 0x5412, 0],
            "limits": [Int(SYS_prlimit64), 0, 4, path, 0],
            "signal-handler": [Int(SYS_rt_sigaction), Int(SIGSYS), 0, 0, 8],
            "userfaultfd": [Int(SYS_userfaultfd), 0],
            "bpf": [Int(SYS_bpf), 0, 0, 0],
            "mount": [Int(SYS_mount), path, path, path, 0, 0],
        ]
        /// Stands for a path.
        private static let path = Int.min

        let kind: ThreadKind
        private let words: [Int]

        /// `KIND:NAME`; nil when it is neither.
        init?(_ text: String) {
            let parts = text.split(separator: ":").map(String.init)
            guard parts.count == 2, let kind = ThreadKind(rawValue: parts[0]),
                let words = Self.calls[parts[1]]
            else {
                return nil
            }
            self.kind = kind
            self.words = words + Array(repeating: 0, count: 7 - words.count)
        }

        /// On a confined thread. If it succeeds, or fails in any other way than a refusal, it says so, and the test fails.
        func make() {
            var text = Array("/proc/self/status".utf8CString)
            // SAFETY: the path is alive for the call; all other arguments are numbers, or NULL.
            let result = unsafe text.withUnsafeMutableBufferPointer { path in
                let words = words.map { $0 == Self.path ? Int(bitPattern: path.baseAddress) : $0 }
                return mingle_raw_call(words[0], words[1], words[2], words[3], words[4], words[5], words[6])
            }
            HostIO.tell("mingle: error: the attempt came to \(result)\n")
            exit(99)
        }
    }
#endif
