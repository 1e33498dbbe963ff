internal import Glibc

/// The words that this process was started with, as bytes: Linux passes bytes, and `CommandLine.arguments` puts U+FFFD in
/// the place of what is not UTF-8.
public enum ProcessArguments {
    /// The words after the program's name.
    public static func bytes() -> [[UInt8]] {
        var words: [[UInt8]] = []
        // SAFETY: argv has argc pointers to NUL-terminated strings that live as long as the process, and nothing in this
        // process changes them.
        for index in 1..<max(1, Int(CommandLine.argc)) {
            guard let word = unsafe CommandLine.unsafeArgv[index] else { break }
            let count = unsafe strlen(word)
            words.append(
                unsafe [UInt8](UnsafeRawBufferPointer(start: UnsafeRawPointer(word), count: count)))
        }
        return words
    }

    /// A word that is not UTF-8.
    public struct NotText: Error, Equatable, CustomStringConvertible, Sendable {
        /// Counted from 1.
        public let number: Int
        public let word: [UInt8]

        public init(number: Int, word: [UInt8]) {
            self.number = number
            self.word = word
        }

        public var description: String {
            "word \(number) of the command line, '\(ProcessArguments.shown(word))', is not UTF-8"
        }
    }

    /// The words as text.
    public static func text(_ words: [[UInt8]]) throws(NotText) -> [String] {
        var texts: [String] = []
        for (index, word) in words.enumerated() {
            guard let text = String(validating: word, as: UTF8.self) else {
                throw NotText(number: index + 1, word: word)
            }
            texts.append(text)
        }
        return texts
    }

    /// A word as a message shows it: what is not printable ASCII as `\xNN`, as the shell's `$'...'` takes it.
    public static func shown(_ word: [UInt8]) -> String {
        word.prefix(shownLimit).map { byte in
            if byte == UInt8(ascii: "\\") { return "\\\\" }
            if (0x20..<0x7f).contains(byte) { return String(UnicodeScalar(byte)) }
            return "\\x" + (byte < 16 ? "0" : "") + String(byte, radix: 16)
        }.joined() + (word.count > shownLimit ? "..." : "")
    }

    private static let shownLimit = 80
}
