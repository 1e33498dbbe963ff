import GuestMemory
import LinuxHost
import Hypervisor
import VMMProtocol

/// The files that the options name for output. None is opened so that somebody would have to be waited for, and none is
/// changed before all are known to be neither an input nor another output.
struct GuestFiles: ~Copyable {
    private(set) var log: OutputFile?
    private(set) var trace: OutputFile?
    let report: HeldResultFile?

    init(_ options: Options) throws(OutputFileError) {
        var known = Self.inputs(options)
        func distinct(_ identity: FileIdentity?, _ path: String, _ option: String) throws(OutputFileError) {
            guard let identity else { return }
            if let other = known[identity] {
                throw OutputFileError(
                    path: path, reason: "is \(other), too: name another file with \(option)")
            }
            known[identity] = "the file of \(option)"
        }
        func open(_ path: String, _ option: String) throws(OutputFileError) -> OutputFile {
            let file = try OutputFile.open(path)
            do throws(OutputFileError) { try distinct(file.identity, path, option) } catch {
                file.forget()
                throw error
            }
            return file
        }
        if case .file(let path) = options.serial { log = try open(path, "--serial") } else { log = nil }
        do throws(OutputFileError) {
            if let path = options.sharing.tracePath, options.sharing.isOn {
                trace = try open(path, "--trace-share")
            } else {
                trace = nil
            }
            if let path = options.reportPath {
                let file = try HeldResultFile(path)
                do throws(OutputFileError) { try distinct(file.identity, path, "--report") } catch {
                    file.forget()
                    throw error
                }
                report = consume file
            } else {
                report = nil
            }
        } catch {
            log?.forget()
            throw error
        }
    }

    /// What may not be overwritten, with a name for people.
    private static func inputs(_ options: Options) -> [FileIdentity: String] {
        var known: [FileIdentity: String] = [:]
        func add(_ identity: FileIdentity?, _ name: String) {
            if let identity { known[identity] = name }
        }
        if options.serial == .standardStreams {
            add(FileIdentity.of(descriptor: 0), "standard input")
            add(FileIdentity.of(descriptor: 1), "standard output")
        }
        add(FileIdentity.of(descriptor: 2), "standard error")
        for path in options.configuration.initrdPaths {
            add(FileIdentity.of(path: path), "an initial RAM disk")
        }
        add(FileIdentity.of(path: options.configuration.kernelPath), "the kernel")
        return known
    }

    mutating func takeLog() -> OutputFile? { log.take() }
    mutating func takeTrace() -> OutputFile? { trace.take() }
}
