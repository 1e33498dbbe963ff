/// The version of Mingle, stated here and nowhere else.
public enum Version {
    /// Semantic version, without a leading `v`.
    public static let current = "0.1.0"
}
