internal import CLinux
internal import Glibc

/// What every program needs before it can do anything, looked at first of all.
public enum ProgramStart {
    /// Why a program cannot run here.
    public enum Problem: Error, Equatable, Sendable, CustomStringConvertible {
        /// Nothing is known of processes, this one's arguments included.
        case noProc
        /// The value of a variable is not UTF-8; as text, with the wrong bytes in hexadecimal.
        case variable(String, value: String)

        public var description: String {
            switch self {
            case .noProc:
                "/proc is not mounted here, and much of what is needed to know of processes is there: "
                    + "mount it (sudo mount -t proc proc /proc)"
            case .variable(let name, let value):
                "$\(name) is '\(value)', which is not UTF-8: give the directory another name, or use another one"
            }
        }
    }

    /// Ignores what would kill without a word, allows as many open files as may be, and looks for ``Problem``s.
    /// - Parameter variables: names of those that the program takes paths from.
    public static func check(variables: [String] = []) -> Problem? {
        ProcessLimit.ignoreFileSizeSignal()
        if let limit = ProcessLimit.openFiles.current, limit < 1024 { ProcessLimit.openFiles.raise() }
        // SAFETY: a NUL-terminated constant for the time of the call.
        guard unsafe access("/proc/self/cmdline", R_OK) == 0 else { return .noProc }
        for name in variables {
            // SAFETY: nothing in this process changes its environment, so the text stays while it is looked at.
            if let value = unsafe getenv(name), let text = unsafe wrong(value) {
                return .variable(name, value: text)
            }
        }
        return nil
    }

    /// A word of the command line, from 0, whether it is UTF-8 or not; nil beyond the last.
    public static func argument(_ index: Int) -> String? {
        // SAFETY: the words of the command line live as long as the process.
        unsafe mingle_argument(Int32(clamping: index)).map { unsafe String(cString: $0) }
    }

    /// A text with its wrong bytes in hexadecimal; nil when it is UTF-8.
    private static func wrong(_ text: UnsafePointer<CChar>) -> String? {
        // SAFETY: the caller's text ends with NUL.
        let bytes = unsafe UnsafeBufferPointer(start: text, count: strlen(text)).map { UInt8(bitPattern: $0) }
        return readable(bytes)
    }

    /// - Returns: nil for bytes that are UTF-8.
    static func readable(_ bytes: [UInt8]) -> String? {
        String(validating: bytes, as: UTF8.self) == nil ? ProcessArguments.shown(bytes) : nil
    }
}
