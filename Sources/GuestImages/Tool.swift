import FoundationEssentials
import LinuxHost

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
        let output = try memoryFile("output")
        let errors = try memoryFile("errors")
        var child = ChildProgram(program, Array(arguments.dropFirst()))
        child.environment = environment()
        child.streams = [.nothing, .descriptor(output.number), .descriptor(errors.number)]
        child.directory = inScratch ? scratch : nil
        child.keepsIgnoredSignals = true
        let ending: HostProcess.Ending?
        do throws(LinuxError) { ending = HostProcess.collect(try child.start(), wait: true) } catch {
            throw .toolFailed(command: command, status: 127, output: LinuxError.message(error.code))
        }
        let code =
            switch ending {
            case .exited(let status): status
            case .killed(let signal): 128 + signal
            case nil: Int32(127)
            }
        let complaint = String(decoding: try bytes(of: errors, command: command), as: UTF8.self)
            .split(separator: "\n").suffix(complaintLines).joined(separator: "; ")
        guard code == 0 else { throw .toolFailed(command: command, status: code, output: complaint) }
        return Result(status: code, output: try bytes(of: output, command: command), complaint: complaint)
    }

    private static func memoryFile(_ name: String) throws(GuestImagesError) -> OwnedDescriptor {
        do throws(LinuxError) { return try OwnedDescriptor.memoryFile(named: name) } catch {
            throw .file(operation: "make", path: "a memory file", reason: LinuxError.message(error.code))
        }
    }

    /// What a program wrote.
    private static func bytes(of file: borrowing OwnedDescriptor, command: String) throws(GuestImagesError)
        -> [UInt8]
    {
        var bytes: [UInt8]?
        do throws(LinuxError) {
            let size = try file.fileSize()
            if size <= UInt64(outputLimit) { bytes = try file.read(count: Int(size), at: 0) }
        } catch {
            let reason = LinuxError.message(error.code)
            throw .file(operation: "read the output of", path: command, reason: reason)
        }
        guard let bytes else {
            let words = "it wrote more than \(outputLimit) bytes"
            throw .toolFailed(command: command, status: 0, output: words)
        }
        return bytes
    }

    /// What programs are given: enough for apt and its proxies, and the C locale so that their answers can be read.
    private static func environment() -> [String] {
        let kept = [
            "PATH", "HOME", "TMPDIR", "http_proxy", "https_proxy", "ftp_proxy", "no_proxy", "APT_CONFIG",
        ]
        let ours = ProcessInfo.processInfo.environment
        let values = kept.compactMap { name in ours[name].map { "\(name)=\($0)" } }
        return values + ["LC_ALL=C", "DEBIAN_FRONTEND=noninteractive"]
    }
}
