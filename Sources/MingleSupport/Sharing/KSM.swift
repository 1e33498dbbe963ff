import LinuxHost
import CLinux
import VMMProtocol

/// The kernel's own merging (Documentation/admin-guide/mm/ksm.rst): its settings are those of the whole host, so they
/// are written down before they are changed, and put back by whoever comes next if we cannot.
public struct KSM: Sendable {
    /// In the order in which they are put back: pages_to_scan cannot be written while an advisor is on.
    private static let names = ["advisor_mode", "pages_to_scan", "sleep_millisecs", "run"]
    private static let fileName = "ksm-settings"

    private static let hostRoot = "/sys/kernel/mm/ksm"
    private let root: String

    public init(root: String = "/sys/kernel/mm/ksm") { self.root = root }

    public var isPresent: Bool { SystemCall.exists(root + "/run") }
    public var isWritable: Bool { SystemCall.isAccessible(root + "/run", mode: W_OK) }

    /// One of the kernel's counters; 0 if this kernel has none of that name.
    public func counter(_ name: String) -> UInt64 {
        SystemCall.text(of: root + "/" + name).flatMap { UInt64($0.prefix { $0.isNumber }) } ?? 0
    }

    /// A setting; of several words, that in brackets.
    func setting(_ name: String) -> String? {
        guard let text = SystemCall.text(of: root + "/" + name) else { return nil }
        let line = text.prefix { !$0.isNewline }
        guard let open = line.firstIndex(of: "["), let close = line.lastIndex(of: "]"), open < close else {
            return String(line)
        }
        return String(line[line.index(after: open)..<close])
    }

    func set(_ name: String, _ value: String) throws(SupportError) {
        let path = root + "/" + name
        switch SystemCall.overwrite(path, with: value) {
        case .success: return
        case .failure(let error):
            throw .systemCall(operation: "set \(name) of KSM in", subject: path, code: error.code)
        }
    }

    /// The settings as they are.
    func settings() -> [(String, String)] {
        Self.names.compactMap { name in setting(name).map { (name, $0) } }
    }

    /// As fast as it goes: never asleep, no advisor.
    func runAtFullSpeed() throws(SupportError) {
        if setting("advisor_mode") != nil { try set("advisor_mode", "none") }
        try set("pages_to_scan", "100000")
        try set("sleep_millisecs", "0")
        try set("run", "1")
    }

    /// Gives every process its own copies again, everywhere on this host, and stops.
    func unmerge() throws(SupportError) { try set("run", "2") }

    /// The file that holds the settings of before; locked by who changed them. The host has one set of settings, so it has one
    /// such file: whoever comes next finds it, also from another state directory.
    func file(in directory: StateDirectory) -> String {
        root == Self.hostRoot ? "/run/mingle-" + Self.fileName : directory.path + "/" + Self.fileName
    }

    fileprivate func restore(_ text: String) throws(SupportError) {
        let saved = KeyValueText(parsing: text)
        for name in Self.names {
            guard let value = saved[name], setting(name) != value else { continue }
            try set(name, value)
        }
    }
}

/// The time during which KSM's settings are ours. Ends with ``end()``, or with the next `mingle` after a crash.
final class KSMLease {
    private let ksm: KSM
    private let path: String
    private let file: OwnedDescriptor
    private let text: String
    /// Whether KSM did nothing before: then nobody else depends on what it merges.
    let wasOff: Bool

    /// Writes the settings down.
    init(_ ksm: KSM, in directory: StateDirectory) throws(SupportError) {
        guard ksm.isPresent else {
            throw .requirement(problem: "this kernel has no KSM", advice: "use --sharing builtin")
        }
        guard ksm.isWritable else {
            throw .requirement(
                problem: "KSM's settings can only be changed by root",
                advice: "run it as root, or use --sharing builtin")
        }
        self.ksm = ksm
        path = ksm.file(in: directory)
        _ = try Self.repair(ksm, in: directory)
        text = KeyValueText.text(ksm.settings())
        wasOff = ksm.setting("run") != "1"
        file = try Self.write(text, to: path)
    }

    /// Makes a locked file that is whole from the moment on at which it has its name; a name is taken once.
    private static func write(_ text: String, to path: String) throws(SupportError) -> OwnedDescriptor {
        let busy = SupportError.requirement(
            problem: "another experiment uses KSM", advice: "wait until it has ended")
        // What a killed experiment left of it is overwritten.
        let beside = path + ".new"
        let number: Int32
        switch SystemCall.open(beside, flags: O_RDWR | O_CREAT | O_NOFOLLOW, mode: 0o600) {
        case .success(let opened): number = opened
        case .failure(let error): throw .systemCall(operation: "create", subject: beside, code: error.code)
        }
        let file = OwnedDescriptor(adopting: number)
        guard (try? file.lock()) == true else { throw busy }
        defer { SystemCall.remove(beside) }
        guard case .success(let ours) = SystemCall.status(ofDescriptor: file.number),
            case .success(let named) = SystemCall.linkStatus(beside), named.isSameFile(as: ours)
        else { throw busy }
        let written = SystemCall.truncate(file.number).flatMap { SystemCall.write(file.number, text) }
        if case .failure(let error) = written {
            throw .systemCall(operation: "write KSM's settings to", subject: path, code: error.code)
        }
        if case .failure(let error) = SystemCall.link(beside, to: path) {
            if error.code == EEXIST { throw busy }
            throw .systemCall(operation: "create", subject: path, code: error.code)
        }
        return file
    }

    /// Puts the settings back.
    func end() throws(SupportError) {
        try ksm.restore(text)
        SystemCall.remove(path)
    }

    /// Puts settings back that somebody who was killed had changed.
    /// - Returns: whether there were any.
    static func repair(_ ksm: KSM, in directory: StateDirectory) throws(SupportError) -> Bool {
        let path = ksm.file(in: directory)
        guard case .success(let number) = SystemCall.open(path, flags: O_RDONLY | O_NOFOLLOW) else {
            return false
        }
        let file = OwnedDescriptor(adopting: number)
        guard (try? file.lock()) == true,
            case .success(let bytes) = SystemCall.read(file.number, count: 65536, at: 0)
        else { return false }
        // Empty: it was not yet written down, so nothing was changed.
        if !bytes.isEmpty { try ksm.restore(String(decoding: bytes, as: UTF8.self)) }
        _ = GuestRegistry.removeIfUnused(path, locked: file.number)
        return !bytes.isEmpty
    }
}
