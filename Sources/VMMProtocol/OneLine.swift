/// Texts that end up in line-based files or in the kernel's command line.
public enum OneLine {
    /// The same text with control characters replaced, for labels that are shown and nothing else.
    public static func label(_ text: String) -> String {
        String(decoding: text.utf8.map { $0 < 0x20 || $0 == 0x7f ? UInt8(ascii: "?") : $0 }, as: UTF8.self)
    }
}
