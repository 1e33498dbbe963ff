import ArgumentParser
import GuestMemory
import LinuxHost

/// What the command line says: options for the parser, and the words that a guest is to run, which no parser touches.
///
/// They are cut off first, for two reasons. They are bytes that need not be text, and the parser's time grows with the
/// square of the number of words.
struct ParsedLine {
    /// The words for the parser.
    let words: [String]
    /// The words behind `--` of `mingle run`.
    let guestWords: [[UInt8]]

    /// Stands for all of a guest's words before the parser.
    private static let stand = "..."
    private static let terminator = Array("--".utf8)

    init(_ bytes: [[UInt8]]) throws {
        var own = bytes[...]
        var guestWords: [[UInt8]] = []
        // No option takes '--' as its value, so the first one ends the options.
        if bytes.first == Array("run".utf8), let end = bytes.firstIndex(of: Self.terminator) {
            own = bytes[..<end]
            guestWords = Array(bytes[(end + 1)...])
        }
        do throws(ProcessArguments.NotText) {
            words =
                try ProcessArguments.text(Array(own)) + (guestWords.isEmpty ? [] : ["--", Self.stand])
        } catch {
            throw ValidationError(
                "\(error): only the command behind '--' of 'mingle run' may hold such bytes; give a file another name, "
                    + "or reach it by a link")
        }
        self.guestWords = guestWords
    }

    /// The command that they name, with the guest's words in it.
    func command() throws -> any ParsableCommand {
        let command = try MingleCommand.parseAsRoot(words)
        guard var run = command as? RunCommand else { return command }
        run.words = guestWords
        return run
    }
}
