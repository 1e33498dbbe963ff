import Foundation

/// What `MINGLE_REQUIRE` says must be there, so that its lack is a failure and no skip: words, separated by commas.
public enum Demands {
    public static let words = (ProcessInfo.processInfo.environment["MINGLE_REQUIRE"] ?? "")
        .split { $0 == "," || $0 == " " }.map(String.init)

    public static func include(_ word: String) -> Bool { words.contains(word) }
}
