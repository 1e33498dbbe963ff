import LinuxHost
import CLinux

/// A directory below the state directory for one experiment: the broker's files, guests' output. It is locked as long as
/// its owner lives; what a killed owner left is removed by the next `mingle`.
final class Workspace {
    private static let prefix = "density-"
    /// The file that names the control groups of the experiment.
    private static let groups = "cgroups"

    let path: String
    /// What guests and groups of the experiment are called after.
    let name: String
    private let lock: OwnedDescriptor

    init(in directory: StateDirectory) throws(SupportError) {
        // A process of another PID namespace may have the same number.
        for attempt in 0..<100 {
            let name = Self.prefix + "\(Console.process)" + (attempt == 0 ? "" : "-\(attempt)")
            let path = directory.path + "/" + name
            if case .failure(let error) = SystemCall.makeDirectory(path), error.code != EEXIST {
                throw .systemCall(operation: "create", subject: path, code: error.code)
            }
            if let lock = Self.locked(path) {
                (self.name, self.path) = (name, path)
                self.lock = lock
                return
            }
        }
        throw .requirement(
            problem: "\(directory.path)/\(Self.prefix)\(Console.process) is in use", advice: "try again")
    }

    func file(_ name: String) -> String { path + "/" + name }

    /// Remembers a control group, so that it goes even if we are killed.
    func note(group: String) throws(SupportError) {
        try SystemCall.append(file(Self.groups), line: group)
    }

    /// Removes it with all that is in it.
    func remove() { Self.clear(path) }

    /// Removes those of experiments that were killed.
    static func sweep(_ directory: StateDirectory) {
        guard case .success(let names) = SystemCall.names(in: directory.path) else { return }
        for name in names where name.hasPrefix(prefix) {
            let path = directory.path + "/" + name
            guard locked(path) != nil else { continue }
            clear(path)
        }
    }

    /// The lock of a directory that is still called so; nil when somebody else has it, or it is gone.
    private static func locked(_ path: String) -> OwnedDescriptor? {
        guard case .success(let number) = SystemCall.open(path, flags: O_RDONLY | O_DIRECTORY | O_NOFOLLOW)
        else {
            return nil
        }
        let descriptor = OwnedDescriptor(adopting: number)
        guard (try? descriptor.lock()) == true,
            case .success(let ours) = SystemCall.status(ofDescriptor: descriptor.number),
            case .success(let named) = SystemCall.linkStatus(path), named.isSameFile(as: ours)
        else { return nil }
        return descriptor
    }

    private static func clear(_ path: String) {
        for group in (SystemCall.text(of: path + "/" + groups) ?? "").split(separator: "\n") {
            _ = ControlGroup.remove(String(group))
        }
        guard case .success(let names) = SystemCall.names(in: path) else { return }
        for name in names { SystemCall.remove(path + "/" + name) }
        _ = SystemCall.removeDirectory(path)
    }
}

/// What killed commands left behind, put right at the start of every other one.
public enum Leftovers {
    /// - Returns: messages for people.
    public static func clear(in directory: StateDirectory) throws(SupportError) -> [String] {
        if try directory.isPresent() { Workspace.sweep(directory) }
        guard SystemCall.exists(KSM().file(in: directory)) else { return [] }
        return try KSMLease.repair(KSM(), in: directory)
            ? ["put KSM's settings back, which a killed experiment had changed"] : []
    }
}
