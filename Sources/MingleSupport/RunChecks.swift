import CLinux
internal import GuestMemory
public import LinuxHost

/// What is checked before a guest is started, so that the user reads a reason and not a VMM's failure.
public struct RunChecks: Sendable {
    /// Most vCPUs of a guest.
    public static let maximumCPUs = 32
    /// The size of a page, of which guest memory is a multiple.
    public static let pageSize = Page.size
    /// The least memory of a Linux guest and of a payload.
    public static let minimumLinuxMemory: UInt64 = 32 << 20
    public static let minimumPayloadMemory: UInt64 = 4 << 20
    /// The most, with or without --overcommit; a payload's page tables lie below 640 KiB and map no more.
    public static let maximumLinuxMemory = GuestMemory.maximumSizeInBytes
    public static let maximumPayloadMemory: UInt64 = 140 << 30

    private let processorCount: Int

    public init(processorCount: Int) { self.processorCount = processorCount }

    /// Checks the size of guest memory; whether the host has it is asked by ``Admission``.
    public static func memory(_ bytes: UInt64, isPayload: Bool) throws(SupportError) {
        let size = ByteSize.format(bytes)
        let minimum = isPayload ? minimumPayloadMemory : minimumLinuxMemory
        guard bytes >= minimum else {
            throw .requirement(
                problem: "a \(isPayload ? "payload" : "Linux guest") cannot run in \(size)",
                advice: "use --memory \(ByteSize.format(minimum)) or more")
        }
        let maximum = isPayload ? maximumPayloadMemory : maximumLinuxMemory
        guard bytes <= maximum else {
            throw .requirement(
                problem: "a \(isPayload ? "payload" : "Linux guest") cannot have \(size) of memory",
                advice: "use --memory \(ByteSize.format(maximum)) or less")
        }
        guard bytes.isMultiple(of: pageSize) else {
            throw .requirement(
                problem: "\(bytes) bytes of memory are not whole pages of \(pageSize)",
                advice: "use --memory with a unit, such as 128M")
        }
    }

    /// Refuses numbers of vCPUs that no host can give.
    public static func cpuCount(_ count: Int) throws(SupportError) {
        guard (1...maximumCPUs).contains(count) else {
            throw .requirement(problem: "--cpus \(count) is not possible", advice: "use 1 to \(maximumCPUs)")
        }
    }

    /// Checks the number of vCPUs; the warnings are for the user.
    public func cpus(_ count: Int) throws(SupportError) -> [String] {
        try Self.cpuCount(count)
        guard count > processorCount else { return [] }
        return [
            "--cpus \(count) is more than the \(processorCount) of this host: the guest's CPUs will take turns"
        ]
    }

    /// Checks that kernel and initrd leave the guest memory to run in. Only what cannot work at all is refused.
    public func fits(memory: UInt64, kernelBytes: UInt64, initrdBytes: UInt64) throws(SupportError) {
        let (sum, overflow) = kernelBytes.addingReportingOverflow(initrdBytes)
        guard !overflow, sum < memory else {
            let initrd = initrdBytes == 0 ? "" : " and the initrd (\(ByteSize.format(initrdBytes)))"
            throw .requirement(
                problem: "the kernel (\(ByteSize.format(kernelBytes)))\(initrd) "
                    + "\(initrdBytes == 0 ? "does" : "do") not fit in \(ByteSize.format(memory)) of guest memory",
                advice: "use a larger --memory or a smaller image")
        }
    }

    /// Opens a file for reading to see that it can be, and gives its size in bytes.
    public static func readableFile(_ path: String, what: String) throws(SupportError) -> UInt64 {
        let status: FileStatus
        switch SystemCall.status(path) {
        case .success(let found): status = found
        case .failure(let error):
            throw .systemCall(operation: "open \(what)", subject: path, code: error.code)
        }
        guard status.isRegularFile else {
            throw .unusableImage(path: path, reason: "not a regular file: name a file as \(what)")
        }
        switch SystemCall.open(path, flags: 0) {
        case .success(let number): _ = OwnedDescriptor(adopting: number)
        case .failure(let error):
            throw .systemCall(operation: "open \(what)", subject: path, code: error.code)
        }
        return UInt64(clamping: status.size)
    }
}

extension RunChecks {
    /// Sees that a file which is to be booted is there and can be read.
    public static func kernelFile(_ path: String) throws(SupportError) {
        let problem: String
        do throws(SupportError) {
            _ = try readableFile(path, what: "kernel")
            return
        } catch {
            guard case .systemCall(_, _, ENOENT) = error else { throw error }
            problem = error.description
        }
        throw .requirement(
            problem: problem,
            advice: "name a file, or one of the images of 'mingle images list', such as payload:hello")
    }

    /// Files that a guest may have open at the same time, at most: its own, and two for each vCPU.
    public static func openFilesNeeded(cpus: Int, shares: Bool) -> Int { 24 + 2 * cpus + (shares ? 24 : 0) }

    /// Refuses a guest whose VMM could not do what this process's limits forbid.
    public static func limits(
        memory: UInt64, cpus: Int, shares: Bool, fileSize: UInt64? = ProcessLimit.fileSize.current,
        openFiles: UInt64? = ProcessLimit.openFiles.current
    ) throws(SupportError) {
        if let fileSize, fileSize < memory {
            throw .requirement(
                problem: "a guest's memory is a memory file, and this process may make files of at most "
                    + "\(ByteSize.format(fileSize)), less than the guest's \(ByteSize.format(memory))",
                advice: "raise the limit (ulimit -f unlimited), or use a smaller --memory")
        }
        let needed = openFilesNeeded(cpus: cpus, shares: shares)
        if let openFiles, openFiles < UInt64(needed) {
            throw .requirement(
                problem: "such a guest may need \(needed) open files, and this process may have \(openFiles)",
                advice: "raise the limit (ulimit -n 1024)")
        }
    }

    /// Sees that a file can be written, without creating or changing it.
    public static func writableFile(_ path: String, option: String) throws(SupportError) {
        guard !path.isEmpty else {
            throw .requirement(problem: "\(option) names no file", advice: "name one, or leave \(option) out")
        }
        if case .success(let status) = SystemCall.status(path), status.isDirectory {
            throw .unusableImage(path: path, reason: "is a directory: name a file with \(option)")
        }
        if SystemCall.exists(path) {
            guard SystemCall.isAccessible(path, mode: W_OK) else {
                let reason = LinuxError.current("access", path).code
                throw .unusableImage(
                    path: path,
                    reason:
                        "cannot be written (\(LinuxError.message(reason))): name another file with \(option)")
            }
            return
        }
        let folder = path.lastIndex(of: "/").map { $0 == path.startIndex ? "/" : String(path[..<$0]) } ?? "."
        guard case .success(let status) = SystemCall.status(folder), status.isDirectory,
            SystemCall.isAccessible(folder, mode: W_OK | X_OK)
        else {
            throw .requirement(
                problem: "\(path) cannot be created",
                advice: "name a file in a writable directory with \(option)")
        }
    }
}

/// The arguments of a payload (guests/README.md).
public enum PayloadArguments {
    /// The most bytes that fit before the NUL.
    public static let maximumLength = 4095

    /// Joins words with spaces.
    /// - Parameter words: as the command line has them; a payload's arguments are text.
    public static func join(bytes words: [[UInt8]]) throws(SupportError) -> String {
        let texts: [String]
        do throws(ProcessArguments.NotText) { texts = try ProcessArguments.text(words) } catch {
            throw .requirement(
                problem:
                    "argument \(error.number) of the payload, '\(ProcessArguments.shown(error.word))', is not UTF-8",
                advice: "a payload's arguments are text: encode it")
        }
        return try join(texts)
    }

    /// Joins words with spaces.
    public static func join(_ words: [String]) throws(SupportError) -> String {
        let text = words.joined(separator: " ")
        guard text.utf8.count <= maximumLength else {
            throw .requirement(
                problem: "the payload's arguments have \(text.utf8.count) bytes",
                advice: "at most \(maximumLength) fit: shorten them")
        }
        return text
    }
}
