import LinuxHost
import CLinux

/// A record that somebody holds, though it does not say what it should. The guest runs all the same.
public struct DamagedRecord: Equatable, Sendable, CustomStringConvertible {
    /// The name of its file, which is that of the guest.
    public var name: String
    /// Whoever holds the lock: the guest's VMM. Nil when the kernel does not say.
    public var process: Int32?
    public var problem: SupportError

    public init(name: String, process: Int32? = nil, problem: SupportError) {
        self.name = name
        self.process = process
        self.problem = problem
    }

    public var description: String {
        let holder = process.map { " (process \($0))" } ?? ""
        let advice =
            process == nil
            ? "see who holds it with 'lsof', and end that process" : "end it with 'mingle stop \(name)'"
        return "the record of guest '\(name)'\(holder) is damaged: \(problem); \(advice)"
    }
}

/// Who holds the lock of a file (flock(2)), by `/proc/locks` (proc_locks(5)).
enum LockHolder {
    /// The process with the exclusive lock; nil when there is none, or it cannot be seen from here.
    static func process(of file: FileStatus, root: String = "") -> Int32? {
        let device = "\(hex(file.deviceMajor)):\(hex(file.deviceMinor)):\(file.inode)"
        for line in (SystemCall.text(of: root + "/proc/locks") ?? "").split(separator: "\n") {
            // number: kind mode access process major:minor:inode start end; who waits has `->` behind the number.
            let fields = line.split(separator: " ")
            guard fields.count >= 6, fields[1] == "FLOCK", fields[3] == "WRITE", fields[5] == device,
                let process = Int32(fields[4]), process > 0
            else { continue }
            return process
        }
        return nil
    }

    /// At least two digits, as the kernel writes devices.
    private static func hex(_ number: UInt) -> String {
        let text = String(number, radix: 16)
        return text.count < 2 ? "0" + text : text
    }
}
