import Foundation
import LinuxHost
import Testing
import TestSupport

/// `mingle-vmm` with one guest; its output goes to files of a temporary folder.
final class VMMProcess {
    let folder: TemporaryDirectory
    let child: ChildProcess

    /// - Parameters:
    ///   - options: further words of the command line; they count more than ours.
    ///   - streams: input, output and errors where they differ from nothing, `output`, `errors`.
    init(
        _ payload: String = "hello", _ arguments: String = "", kernel: String? = nil, memory: Int = 16 << 20,
        processors: Int = 1, options: [String] = [], folder: TemporaryDirectory? = nil,
        name: String = "guest",
        input: ChildProgram.Stream? = nil, output: ChildProgram.Stream? = nil,
        errors: ChildProgram.Stream? = nil,
        ownSession: Bool = false
    ) throws {
        let folder = try folder ?? TemporaryDirectory()
        self.folder = folder
        let writing = O_WRONLY | O_CREAT | O_TRUNC
        child = try ChildProcess(
            Locations.vmm,
            [
                "--kernel", try kernel ?? Locations.payload(payload), "--name", name, "--memory", "\(memory)",
                // Ends by itself even if the tests are killed.
                "--cpus", "\(processors)", "--arguments", arguments, "--timeout", "1800",
            ] + options,
            streams: [
                input ?? .file("/dev/null", O_RDONLY), output ?? .file(folder.path("output"), writing),
                errors ?? .file(folder.path("errors"), writing),
            ], ownSession: ownSession)
    }

    var output: String { folder.text("output") }
    var errors: String { folder.text("errors") }

    /// Waits until the guest has said it.
    func waitForOutput(_ text: String, in file: String = "output") throws {
        let said = eventually { folder.text(file).contains(text) || child.finish() != nil }
        guard said, folder.text(file).contains(text) else {
            throw Failure("the guest did not say '\(text)', but: \(folder.text(file))\nerrors: \(errors)")
        }
    }

    /// The exit status.
    @discardableResult
    func wait(within seconds: Double = 60) throws -> Int32 { try child.wait(within: seconds) }
}
