/// Texts that end up in line-based files or in the kernel's command line.
public enum OneLine {
    /// The same text with control characters replaced, for labels that are shown and nothing else.
    public static func label(_ text: String) -> String { replacing(in: text, but: "") }

    /// The same, for several lines with tabs: what a terminal shows without doing anything else.
    public static func lines(_ text: String) -> String { replacing(in: text, but: "\n\t") }

    private static func replacing(in text: String, but allowed: String) -> String {
        let allowed = allowed.unicodeScalars
        var result = String.UnicodeScalarView()
        for scalar in text.unicodeScalars {
            result.append(isControl(scalar) && !allowed.contains(scalar) ? "?" : scalar)
        }
        return String(result)
    }

    /// Of the sets C0 and C1 (Unicode, category Cc): a terminal takes U+009B for the beginning of a command.
    public static func isControl(_ scalar: Unicode.Scalar) -> Bool {
        scalar.value < 0x20 || 0x7f...0x9f ~= scalar.value
    }
}
