import LinuxHost

/// What a process is at.
public enum ProcessState {
    /// Whether a signal has stopped it (proc_pid_stat(5), state T).
    public static func isStopped(_ process: Int32) -> Bool {
        // Behind the name, which may hold anything.
        let fields = (SystemCall.text(of: "/proc/\(process)/stat") ?? "").split(separator: ")").last
        return fields?.split(separator: " ").first == "T"
    }
}

/// How much memory a process has in RAM, from the kernel's own count.
public struct ProcessMemory: Equatable, Sendable {
    /// Its share of anonymous memory, in bytes.
    public var anonymousBytes: UInt64
    /// Its share of shared memory, in bytes: the memfd that is the guest's RAM.
    public var sharedMemoryBytes: UInt64

    /// Both together: guest RAM that was touched, and what the VMM itself needs. Program code, which the page cache
    /// holds once for all, is not in it.
    public var residentBytes: UInt64 { anonymousBytes + sharedMemoryBytes }

    /// Reads the text of `/proc/PID/smaps_rollup`; nil if it has no such lines.
    public init?(smapsRollup text: String) {
        let found = SmallFile.table(text)
        guard let anonymous = found["Pss_Anon"], let shared = found["Pss_Shmem"] else { return nil }
        anonymousBytes = anonymous * 1024
        sharedMemoryBytes = shared * 1024
    }

    /// Asks the kernel about a process; nil if it ended, or is not ours to look at.
    public init?(process: Int32) {
        guard let text = SystemCall.text(of: "/proc/\(process)/smaps_rollup") else { return nil }
        self.init(smapsRollup: text)
    }
}
