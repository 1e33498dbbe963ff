internal import CLinux
internal import Glibc

/// What every program needs before it can do anything, looked at first of all.
public enum ProgramStart {
    /// Why a program cannot run here.
    public enum Problem: Error, Equatable, Sendable, CustomStringConvertible {
        /// Nothing is known of processes, this one's arguments included.
        case noProc
        /// An argument is not UTF-8; as text, with the wrong bytes in hexadecimal.
        case argument(String)
        /// Nor is the value of a variable.
        case variable(String, value: String)

        public var description: String {
            switch self {
            case .noProc:
                "/proc is not mounted here, and much of what is needed to know of processes is there: "
                    + "mount it (sudo mount -t proc proc /proc)"
            case .argument(let text):
                "the argument '\(text)' is not UTF-8: give the file another name, or a link to it"
            case .variable(let name, let value):
                "$\(name) is '\(value)', which is not UTF-8: give the directory another name, or use another one"
            }
        }

        /// Whether the command line itself is wrong.
        public var isUsage: Bool { if case .argument = self { true } else { false } }
    }

    /// Ignores what would kill without a word, allows as many open files as may be, and looks for ``Problem``s.
    /// - Parameter variables: names of those that the program takes paths from.
    public static func check(variables: [String] = []) -> Problem? {
        ProcessLimit.ignoreFileSizeSignal()
        if let limit = ProcessLimit.openFiles.current, limit < 1024 { ProcessLimit.openFiles.raise() }
        // SAFETY: a NUL-terminated constant for the time of the call.
        guard unsafe access("/proc/self/cmdline", R_OK) == 0 else { return .noProc }
        var index: Int32 = 1
        // SAFETY: the words of the command line live as long as the process.
        while let word = unsafe mingle_argument(index) {
            if let text = unsafe wrong(word) { return .argument(text) }
            index += 1
        }
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

    /// - Returns: nil for bytes that are UTF-8; else a text in which those that are not ASCII stand as `\\xNN`.
    static func readable(_ bytes: [UInt8]) -> String? {
        guard String(validating: bytes, as: UTF8.self) == nil else { return nil }
        return bytes.map { byte in
            (0x20..<0x7f).contains(byte)
                ? String(UnicodeScalar(byte)) : "\\x" + (byte < 16 ? "0" : "") + String(byte, radix: 16)
        }.joined()
    }
}
