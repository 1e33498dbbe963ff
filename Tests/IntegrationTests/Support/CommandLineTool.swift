import Foundation
import LinuxHost
import TestSupport

/// `mingle` with a state directory of its own.
final class CommandLineTool {
    static let path = Locations.vmm.replacingOccurrences(of: "mingle-vmm", with: "mingle")
    let folder: TemporaryDirectory
    private let environment: [String: String]
    /// The control group that what is started belongs to.
    var group: String?

    init() throws {
        folder = try TemporaryDirectory()
        // The state directory lies in a short path: sockets' paths are bounded.
        try FileManager.default.setAttributes([.posixPermissions: 0o700], ofItemAtPath: folder.path)
        environment = ["XDG_RUNTIME_DIR": folder.path]
    }

    var stateDirectory: String { folder.path + "/mingle" }
    var brokerSocket: String { stateDirectory + "/broker.sock" }

    /// Starts a command; output and errors go to files.
    /// - Parameters:
    ///   - input: its standard input; nothing, unless said.
    ///   - groups: files that a process joins control groups by, beside ``group``.
    ///   - variables: of the environment, beyond ours.
    func start(
        _ arguments: [String], output: String = "output", input: Int32? = nil, groups: [String] = [],
        variables: [String: String] = [:]
    ) throws -> ChildProcess {
        let writing = O_WRONLY | O_CREAT | O_TRUNC
        var environment = environment.merging(variables) { $1 }
        if let payloads = Locations.payloads {
            environment["MINGLE_SHARE"] = (payloads as NSString).deletingLastPathComponent
        }
        var words = [Self.path] + arguments
        let joined = groups + (group.map { [$0 + "/cgroup.procs"] } ?? [])
        if !joined.isEmpty {
            let joining = joined.map { "echo $$ > \($0) || exit 99; " }.joined()
            words = ["/bin/sh", "-c", joining + "exec \"$@\"", "sh"] + words
        }
        return try ChildProcess(
            words[0], Array(words.dropFirst()), environment: environment,
            streams: [
                input.map { .descriptor($0) } ?? .file("/dev/null", O_RDONLY),
                .file(folder.path(output), writing),
                .file(folder.path(output + ".errors"), writing),
            ])
    }

    /// What a command prints; it must succeed.
    func run(_ arguments: [String]) throws -> String {
        let name = "run-\(UUID().uuidString)"
        let status = try start(arguments, output: name).wait(within: 120)
        guard status == 0 else {
            throw Failure("mingle \(arguments): status \(status): \(folder.text(name + ".errors"))")
        }
        return folder.text(name)
    }

    func json(_ arguments: [String]) throws -> [String: Any] {
        let text = try run(arguments)
        // There is nothing to tell of, yet.
        if text == "null\n" { return [:] }
        let data = Data(text.utf8)
        guard let object = try JSONSerialization.jsonObject(with: data) as? [String: Any] else {
            throw Failure("mingle \(arguments) printed no object")
        }
        return object
    }

    /// Everything in the state directory but its own folders, when one more command has looked: a confined guest removes nothing.
    var leftovers: [String] {
        _ = try? run(["ps"])
        let state = folder.path + "/mingle"
        let names = (try? FileManager.default.subpathsOfDirectory(atPath: state)) ?? []
        return names.filter { !["control", "guests", "terminal"].contains($0) }
    }

    /// The names of registered guests.
    var guests: [String] {
        let folder = folder.path + "/mingle/guests"
        return ((try? FileManager.default.contentsOfDirectory(atPath: folder)) ?? []).filter {
            isLocked("\(folder)/\($0)")
        }
    }

    /// Processes with our directory on their command line.
    var processes: [String] {
        let all = (try? FileManager.default.contentsOfDirectory(atPath: "/proc")) ?? []
        return all.filter { Int($0) != nil }.filter { number in
            let words = FileManager.default.contents(atPath: "/proc/\(number)/cmdline") ?? Data()
            return String(decoding: words, as: UTF8.self).contains(folder.path + "/mingle")
        }
    }
}
