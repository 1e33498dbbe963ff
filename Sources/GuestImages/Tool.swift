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
    ///   - scratch: a directory where its output may be written meanwhile; also the working directory if `inScratch`.
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
        let name = UInt32.random(in: 0...UInt32.max)
        let (outputPath, errorPath) = ("\(scratch)/output.\(name)", "\(scratch)/error.\(name)")
        defer {
            try? FileSystem.remove(outputPath)
            try? FileSystem.remove(errorPath)
        }
        let (failure, process) = start(
            (inScratch ? ["env", "--chdir=\(scratch)"] : []) + [program] + arguments.dropFirst(),
            output: outputPath,
            errors: errorPath)
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
        let complaint = String(decoding: (try? FileSystem.read(errorPath)) ?? [], as: UTF8.self)
            .split(separator: "\n").suffix(complaintLines).joined(separator: "\n")
        guard code == 0 else { throw .toolFailed(command: command, status: code, output: complaint) }
        guard let size = FileSystem.sizeAndTime(outputPath)?.size, size <= outputLimit else {
            throw .toolFailed(
                command: command, status: code, output: "it wrote more than \(outputLimit) bytes")
        }
        return Result(status: code, output: try FileSystem.read(outputPath), complaint: complaint)
    }

    /// Starts the program without a fork of this process's memory: posix_spawn, in the C locale, with no input.
    private static func start(_ arguments: [String], output: String, errors: String)
        -> (failure: Int32, process: pid_t)
    {
        var actions = unsafe posix_spawn_file_actions_t()
        let create = O_WRONLY | O_CREAT | O_TRUNC
        // SAFETY: the actions are initialised before use and destroyed after it; the strings and the two arrays of C
        // strings live until posix_spawnp has returned, and are freed after that.
        unsafe posix_spawn_file_actions_init(&actions)
        defer { unsafe posix_spawn_file_actions_destroy(&actions) }
        unsafe posix_spawn_file_actions_addopen(&actions, STDIN_FILENO, "/dev/null", O_RDONLY, 0)
        unsafe posix_spawn_file_actions_addopen(&actions, STDOUT_FILENO, output, create, 0o600)
        unsafe posix_spawn_file_actions_addopen(&actions, STDERR_FILENO, errors, create, 0o600)
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
