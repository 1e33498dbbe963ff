import LinuxHost
import CLinux
import Glibc
public import VMMProtocol

/// The guests that are registered in a state directory.
///
/// A VMM holds `flock(LOCK_EX)` on its record for its whole life. We probe with `LOCK_SH`, so that several of us do not
/// take each other for a guest, and remove a stale record only under `LOCK_EX` and only if the path still names the
/// file that we locked. A VMM that registers must therefore try for a moment longer when its lock is refused, and look
/// after it has the lock whether the path still names its file.
public struct GuestRegistry: Sendable {
    /// What a look at one record found.
    public enum Probe: Equatable, Sendable {
        /// Nothing is registered under the name (a stale record was removed).
        case absent
        case running(GuestRecord)
        /// A VMM holds the record, but it does not say what it should.
        case unreadable(DamagedRecord)
    }

    private enum Look { case absent, busy, locked(text: String, file: FileStatus?) }

    let directory: StateDirectory
    private static let attempts = 20

    public init(directory: StateDirectory) { self.directory = directory }

    /// All running guests, by name; a record that cannot be read keeps nobody from the others.
    public func guests() throws(SupportError) -> (running: [GuestRecord], unreadable: [DamagedRecord]) {
        guard try directory.isPresent() else { return ([], []) }
        let names: [String]
        switch SystemCall.names(in: directory.guestsPath) {
        case .success(let found): names = found
        case .failure(let error) where error.code == ENOENT: return ([], [])
        case .failure(let error):
            throw .systemCall(operation: "list", subject: directory.guestsPath, code: error.code)
        }
        var running: [GuestRecord] = []
        var unreadable: [DamagedRecord] = []
        for name in names {
            do throws(SupportError) {
                switch try probe(name) {
                case .absent: continue
                case .running(let record): running.append(record)
                case .unreadable(let record): unreadable.append(record)
                }
            } catch { unreadable.append(DamagedRecord(name: name, problem: error)) }
        }
        return (running, unreadable)
    }

    /// Looks at one record, and removes it when it is stale. A record that is just being written, or whose process is
    /// gone while another of us removes it, is looked at again for a few milliseconds.
    public func probe(_ name: String) throws(SupportError) -> Probe {
        let path = directory.guestsPath + "/" + name
        var problem = SupportError.malformedRecord(path: path, reason: "somebody looks at it")
        var locked: FileStatus?
        for _ in 0..<Self.attempts {
            switch try look(path) {
            case .absent: return .absent
            case .busy: break
            case .locked(let text, let file):
                locked = file
                do throws(SupportError) {
                    let record = try GuestRecord(text: text, path: path)
                    guard record.name == name else {
                        throw .malformedRecord(
                            path: path, reason: "the record is of another name: \(record.name)")
                    }
                    // The number says something in its own PID namespace only; the lock says the rest.
                    if !record.hasLocalNumber || Self.processExists(record.process) {
                        return .running(record)
                    }
                    problem = .malformedRecord(
                        path: path, reason: "process \(record.process) is not there, yet the record is locked"
                    )
                } catch {
                    problem = error
                }
            }
            SystemCall.sleep(milliseconds: 2)
        }
        let holder = locked.flatMap { LockHolder.process(of: $0) }
        return .unreadable(DamagedRecord(name: name, process: holder, problem: problem))
    }

    /// Whether a guest that did not answer is ending: then it is so within a moment.
    func isEnding(_ name: String) -> Bool {
        let deadline = Clock.monotonic.nanoseconds + 1_000_000_000
        while true {
            if case .absent? = try? probe(name) { return true }
            if Clock.monotonic.nanoseconds >= deadline { return false }
            SystemCall.sleep(milliseconds: 20)
        }
    }

    private func look(_ path: String) throws(SupportError) -> Look {
        let descriptor: OwnedDescriptor
        switch SystemCall.open(path, flags: O_RDONLY | O_NOFOLLOW | O_NONBLOCK) {
        case .success(let number): descriptor = OwnedDescriptor(adopting: number)
        // What is no file was made by no VMM.
        case .failure(let error) where error.code == ENOENT || error.code == ELOOP: return .absent
        case .failure(let error): throw .systemCall(operation: "open", subject: path, code: error.code)
        }
        let isFree: Bool
        do throws(LinuxError) { isFree = try descriptor.lock(shared: true) } catch {
            throw .systemCall(operation: "lock", subject: path, code: error.code)
        }
        if isFree {
            let name = path.split(separator: "/").last.map(String.init) ?? ""
            return Self.removeIfUnused(
                path, locked: descriptor.number,
                with: [directory.controlPath + "/" + name, directory.guestsPath + "/." + name + ".new"])
                ? .absent : .busy
        }
        switch SystemCall.read(descriptor.number, count: 65536, at: 0) {
        case .success(let bytes):
            return .locked(
                text: String(decoding: bytes, as: UTF8.self),
                file: try? SystemCall.status(ofDescriptor: descriptor.number).get())
        case .failure(let error): throw .systemCall(operation: "read", subject: path, code: error.code)
        }
    }

    /// Removes a file of the state directory that nobody uses; false if somebody else got at it first.
    /// - Parameter companions: files that belonged to it and go with it.
    static func removeIfUnused(_ path: String, locked descriptor: Int32, with companions: [String] = [])
        -> Bool
    {
        guard (try? LockedFile.lock(descriptor)) == true else { return false }
        guard case .success(let ours) = SystemCall.status(ofDescriptor: descriptor) else { return false }
        guard case .success(let named) = SystemCall.linkStatus(path) else { return true }
        guard named.isSameFile(as: ours) else { return false }
        for companion in companions { SystemCall.remove(companion) }
        SystemCall.remove(path)
        return true
    }

    private static func processExists(_ process: Int32) -> Bool { kill(process, 0) == 0 || errno == EPERM }
}
