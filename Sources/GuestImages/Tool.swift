internal import CLinux
import FoundationEssentials
import Glibc

/// Runs the system's programs (apt-get, dpkg-deb, busybox) with their output in memory. For the CLI process only: a VMM
/// starts no programs once it has guest memory.
enum Tool {
    struct Result: Sendable {
        /// As a shell would tell it: 128 and the signal's number if a signal ended it.
        let status: Int32
        let output: [UInt8]
        /// The last lines of what it said on standard error.
        let complaint: String

        var text: String { String(decoding: output, as: UTF8.self) }
    }

    private static let outputLimit = 16 << 20
    private static let complaintLines = 3

    /// Where the program is, looked up as a shell does; nil for `path`: in this process's PATH.
    static func find(_ name: String, path: String? = nil) -> String? {
        (path ?? ProcessInfo.processInfo.environment["PATH"] ?? "/usr/bin:/bin:/usr/sbin:/sbin").split(
            separator: ":"
        ).map { "\($0)/\(name)" }
            .first { FileManager.default.isExecutableFile(atPath: $0) }
    }

    /// Runs a program to its end and returns what it wrote.
    /// - Parameters:
    ///   - arguments: the first is the program, with a slash or as it is found in the search path.
    ///   - scratch: the working directory if `inScratch`.
    /// - Throws: `toolFailed` if it cannot be started or its status is not 0.
    @discardableResult
    static func run(
        _ arguments: [String], scratch: String, inScratch: Bool = false, searchPath: String? = nil
    ) throws(GuestImagesError)
        -> Result
    {
        let command = arguments.joined(separator: " ")
        guard let word = arguments.first,
            let program = word.contains("/") ? word : find(word, path: searchPath)
        else {
            throw .toolFailed(command: command, status: 127, output: "the program is not installed")
        }
        // Not files on a disk: that may be full, and what a program says of it is wanted then.
        let (output, errors) = (try memoryFile("output"), try memoryFile("errors"))
        defer {
            close(output)
            close(errors)
        }
        let (failure, process) = start(
            (inScratch ? ["env", "--chdir=\(scratch)"] : []) + [program] + arguments.dropFirst(),
            output: output, errors: errors)
        guard failure == 0 else {
            throw .toolFailed(command: command, status: 127, output: FileSystem.errorText(failure))
        }
        var status: Int32 = 0
        // SAFETY: `status` is valid for the call.
        while unsafe waitpid(process, &status, 0) < 0 {
            guard errno == EINTR else {
                throw .toolFailed(command: command, status: 127, output: FileSystem.errorText(errno))
            }
        }
        let signal = status & 0x7F
        let code = signal == 0 ? (status >> 8) & 0xFF : 128 + signal
        let complaint = String(decoding: try bytes(of: errors, command: command), as: UTF8.self)
            .split(separator: "\n").suffix(complaintLines).joined(separator: "; ")
        guard code == 0 else { throw .toolFailed(command: command, status: code, output: complaint) }
        return Result(status: code, output: try bytes(of: output, command: command), complaint: complaint)
    }

    private static func memoryFile(_ name: String) throws(GuestImagesError) -> Int32 {
        // SAFETY: the bridged string is NUL-terminated and outlives the call.
        let descriptor = unsafe mingle_memfd_create(name, UInt32(MFD_CLOEXEC))
        guard descriptor >= 0 else {
            throw .file(operation: "make", path: "a memory file", reason: FileSystem.errorText(-descriptor))
        }
        return descriptor
    }

    /// What a program wrote.
    private static func bytes(of descriptor: Int32, command: String) throws(GuestImagesError) -> [UInt8] {
        let size = lseek(descriptor, 0, SEEK_END)
        guard (0...outputLimit).contains(size) else {
            throw .toolFailed(command: command, status: 0, output: "it wrote more than \(outputLimit) bytes")
        }
        var filled = 0
        // SAFETY: pread writes at most the bytes that are left of the buffer, and says how many.
        let bytes = unsafe [UInt8](unsafeUninitializedCapacity: size) { buffer, count in
            while filled < size, let base = buffer.baseAddress {
                let got = unsafe pread(descriptor, base + filled, size - filled, filled)
                if got < 0, errno == EINTR { continue }
                guard got > 0 else { break }
                filled += got
            }
            count = filled
        }
        guard filled == size else { throw FileSystem.systemFailure("read the output of", command) }
        return bytes
    }

    /// Starts the program without a fork of this process's memory: posix_spawn, in the C locale, with no input.
    private static func start(_ arguments: [String], output: Int32, errors: Int32)
        -> (failure: Int32, process: pid_t)
    {
        var actions = unsafe posix_spawn_file_actions_t()
        // SAFETY: the actions are initialised before use and destroyed after it; the strings and the two arrays of C
        // strings live until posix_spawnp has returned, and are freed after that.
        unsafe posix_spawn_file_actions_init(&actions)
        defer { unsafe posix_spawn_file_actions_destroy(&actions) }
        unsafe posix_spawn_file_actions_addopen(&actions, STDIN_FILENO, "/dev/null", O_RDONLY, 0)
        unsafe posix_spawn_file_actions_adddup2(&actions, output, STDOUT_FILENO)
        unsafe posix_spawn_file_actions_adddup2(&actions, errors, STDERR_FILENO)
        var words = unsafe arguments.map { unsafe strdup($0) } + [nil]
        var variables = unsafe environment().map { unsafe strdup($0) } + [nil]
        defer {
            unsafe words.forEach { unsafe free($0) }
            unsafe variables.forEach { unsafe free($0) }
        }
        var process: pid_t = 0
        let failure = unsafe posix_spawnp(&process, arguments[0], &actions, nil, &words, &variables)
        return (failure, process)
    }

    /// What programs are given: enough for apt and its proxies, and the C locale so that their answers can be read.
    private static func environment() -> [String] {
        let kept = [
            "PATH", "HOME", "TMPDIR", "http_proxy", "https_proxy", "ftp_proxy", "no_proxy", "APT_CONFIG",
        ]
        let values = kept.compactMap { name -> String? in
            // SAFETY: the string is copied at once; nothing here changes the environment.
            unsafe getenv(name).map { "\(name)=\(unsafe String(cString: $0))" }
        }
        return values + ["LC_ALL=C", "DEBIAN_FRONTEND=noninteractive"]
    }
}
