internal import GuestMemory
internal import LinuxHost

extension RunChecks {
    /// Refuses a file for output that is an input or another output, whatever its name, or of a kind that is never written.
    /// Nothing is opened or changed.
    /// - Parameters:
    ///   - outputs: option and path.
    ///   - inputs: what they are called, and path.
    public static func outputs(
        _ outputs: [(option: String, path: String)], inputs: [(what: String, path: String)]
    ) throws(SupportError) {
        var known: [FileIdentity: String] = [:]
        for (what, path) in inputs {
            if let identity = FileIdentity.of(path: path) { known[identity] = what }
        }
        var names: [String: String] = [:]
        for (option, path) in outputs {
            try writableFile(path, option: option)
            do throws(OutputFileError) { try OutputFile.check(path) } catch {
                throw .unusableImage(path: path, reason: error.reason)
            }
            let identity = FileIdentity.of(path: path)
            if let other = identity.flatMap({ known[$0] }) ?? (SystemCall.exists(path) ? nil : names[path]) {
                throw .unusableImage(path: path, reason: "is \(other), too: name another file with \(option)")
            }
            names[path] = "the file of \(option)"
            if let identity { known[identity] = "the file of \(option)" }
        }
    }
}

/// A file for results that is written whole or not at all (``ResultFile``).
public enum WholeFile {
    public static func write(_ path: String, _ text: String) throws(SupportError) {
        do throws(OutputFileError) { try ResultFile(path).write(Array(text.utf8)) } catch {
            throw .unusableImage(path: path, reason: error.reason)
        }
    }
}
