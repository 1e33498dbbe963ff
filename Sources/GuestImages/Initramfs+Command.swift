extension Initramfs {
    /// Size of the terminal on the host's side, in characters.
    public struct TerminalSize: Equatable, Sendable {
        public let rows: UInt16
        public let columns: UInt16

        public init(rows: UInt16, columns: UInt16) {
            self.rows = rows
            self.columns = columns
        }
    }

    /// What is left of a program's arguments and variables in the guest's kernel: 128 KiB for one, 2 MiB for all.
    private static let wordLimit = 128 << 10
    private static let totalLimit = 2 << 20

    /// A small archive to be put behind the initramfs: it makes the guest run this command instead of a shell.
    ///
    /// The words travel as bytes, NUL-terminated, and no shell ever sees them: there is nothing to quote.
    /// - Parameters:
    ///   - command: the program (looked up in PATH if it has no slash) and its arguments.
    ///   - environment: variables beyond those that init sets; these win.
    ///   - terminal: whether the host's standard input is a terminal. If so, the guest's line echoes, edits and sends
    ///     signals as a terminal does. If not, it carries bytes as they are, with two exceptions: 0x04 at the start of
    ///     a line is the end of the input, elsewhere it hands over what came so far (due at least every 4095 bytes
    ///     without a newline); 0x16 takes the byte after it literally.
    ///   - size: what the guest is told of the terminal's size.
    /// - Throws: `invalidCommand` for what no program can be given.
    public static func commandOverlay(
        command: [String], environment: [String: String] = [:], terminal: Bool, size: TerminalSize? = nil
    ) throws(GuestImagesError) -> [UInt8] {
        try commandOverlay(
            commandBytes: command.map { Array($0.utf8) }, environment: environment, terminal: terminal,
            size: size)
    }

    /// The same for words that need not be UTF-8.
    public static func commandOverlay(
        commandBytes: [[UInt8]], environment: [String: String] = [:], terminal: Bool,
        size: TerminalSize? = nil
    ) throws(GuestImagesError) -> [UInt8] {
        guard let program = commandBytes.first, !program.isEmpty else {
            throw .invalidCommand(
                reason: commandBytes.isEmpty ? "it has no program" : "its first word, the program, is empty")
        }
        var variables: [[UInt8]] = []
        for (name, value) in environment.sorted(by: { $0.key < $1.key }) {
            guard !name.isEmpty, !name.contains("=") else {
                throw .invalidCommand(reason: "'\(name)' is no name of an environment variable")
            }
            variables.append(Array("\(name)=\(value)".utf8))
        }
        for word in commandBytes + variables {
            guard !word.contains(0) else { throw .invalidCommand(reason: "a word has a NUL in it") }
            guard word.count < wordLimit else {
                throw .invalidCommand(
                    reason: "a word has \(word.count) bytes, and \(wordLimit - 1) are possible")
            }
        }
        // Each word costs a pointer as well.
        let total = (commandBytes + variables).reduce(0) { $0 + $1.count + 1 + MemoryLayout<UInt64>.size }
        guard total < totalLimit else {
            throw .invalidCommand(
                reason: "all words together have \(total) bytes, and \(totalLimit - 1) are possible")
        }
        var archive = CPIOArchive()
        try archive.add("mingle/command", .file(terminated(commandBytes)))
        if !variables.isEmpty { try archive.add("mingle/environment", .file(terminated(variables))) }
        if terminal {
            let text = size.map { "\($0.rows) \($0.columns)" } ?? "-"
            try archive.add("mingle/terminal", .file(terminated([Array(text.utf8)])))
        }
        return archive.serialized()
    }

    private static func terminated(_ words: [[UInt8]]) -> [UInt8] {
        words.flatMap { $0 + [0] }
    }
}
