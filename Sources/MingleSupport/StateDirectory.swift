import CLinux
internal import Glibc
internal import LinuxHost
internal import VMMProtocol

/// The directory in which running guests of one user are registered.
///
/// It holds `guests/NAME`, one record for each guest (``GuestRecord``), `control/NAME`, its control socket, and `terminal/TTY`, one for each terminal that
/// a guest has put into raw mode (``SavedTerminal``). Every file is locked with `flock` by the VMM that wrote it for as
/// long as that lives: a file that nobody has locked is left over from a process that was killed.
///
/// Since others could plant files in a directory that they can write, and `/tmp` is everybody's, the directory must be
/// a real one, belong to us, and have mode 0700; anything else is refused.
public struct StateDirectory: Equatable, Sendable {
    /// The absolute path.
    public let path: String

    /// The folder of the guests' records.
    public var guestsPath: String { path + "/" + StateFolder.guests }
    /// The folder of saved terminal settings.
    public var terminalPath: String { path + "/" + StateFolder.terminal }

    /// The folder of the guests' control sockets.
    public var controlPath: String { path + "/" + StateFolder.control }

    /// For a path that was checked already, and for tests.
    public init(path: String) { self.path = path }

    /// Where the directory is: `$XDG_RUNTIME_DIR/mingle` if that variable names a directory that belongs to `user`,
    /// else `/tmp/mingle-UID`. Nothing is created.
    public static func location(runtimeDirectory: String?, user: UInt32) -> StateDirectory {
        if let base = runtimeDirectory, base.hasPrefix("/"),
            case .success(let status) = SystemCall.status(base), status.isDirectory, status.owner == user
        {
            let trimmed = base.count > 1 && base.hasSuffix("/") ? String(base.dropLast()) : base
            return StateDirectory(path: trimmed + "/mingle")
        }
        return StateDirectory(path: "/tmp/mingle-\(user)")
    }

    /// The directory of this process's user.
    public static func current() -> StateDirectory {
        location(runtimeDirectory: Environment.value("XDG_RUNTIME_DIR"), user: geteuid())
    }

    /// Creates what is missing and refuses what cannot be trusted.
    public func prepare() throws(SupportError) {
        for folder in [path, guestsPath, terminalPath, controlPath] {
            // SAFETY: the bridged string is NUL-terminated and outlives the call.
            if unsafe mkdir(folder, 0o700) != 0, errno != EEXIST {
                throw .systemCall(operation: "create the state directory", subject: folder, code: errno)
            }
            try Self.check(folder)
        }
    }

    /// Whether the directory exists; throws if something is there that cannot be trusted.
    public func isPresent() throws(SupportError) -> Bool {
        guard SystemCall.exists(path) else { return false }
        for folder in [path, guestsPath, terminalPath, controlPath] where SystemCall.exists(folder) {
            try Self.check(folder)
        }
        return true
    }

    private static func check(_ folder: String) throws(SupportError) {
        let status: FileStatus
        switch SystemCall.linkStatus(folder) {
        case .success(let found): status = found
        case .failure(let error):
            throw .systemCall(operation: "look at the state directory", subject: folder, code: error.code)
        }
        func refuse(_ reason: String) -> SupportError {
            .unusableStateDirectory(path: folder, reason: reason)
        }
        if status.isSymbolicLink {
            throw refuse("it is a symbolic link: remove it, a real directory is needed")
        }
        if !status.isDirectory { throw refuse("it is not a directory: remove it") }
        if let problem = UserNumbers.current.problem {
            throw refuse("it cannot be told whose it is: \(problem)")
        }
        if status.owner != geteuid() {
            throw refuse(
                "it belongs to user \(status.owner), not to us (\(geteuid())): have it removed, "
                    + "or set XDG_RUNTIME_DIR to a directory of your own")
        }
        if status.permissions != 0o700 {
            throw refuse(
                "its mode is \(String(status.permissions, radix: 8)) and must be 700: "
                    + "see that nobody put files into it, then chmod 700 \(folder)")
        }
    }
}

/// Environment variables.
public enum Environment {
    /// The value of a variable, nil if it is not set or empty.
    public static func value(_ name: String) -> String? {
        // SAFETY: nothing in this process changes its environment, so the text stays valid while it is copied.
        guard let text = unsafe getenv(name) else { return nil }
        let value = unsafe String(cString: text)
        return value.isEmpty ? nil : value
    }
}
