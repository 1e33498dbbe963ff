/// Paths of sockets, which the kernel keeps shorter than those of files.
public enum SocketPath {
    /// Bytes, without the NUL (unix(7)).
    public static let maximumLength = 107

    /// Checks a path and gives it back.
    public static func checked(_ path: String) throws(SupportError) -> String {
        guard path.utf8.count <= maximumLength else {
            throw .requirement(
                problem:
                    "the socket \(path) has a path of \(path.utf8.count) bytes and at most \(maximumLength) fit",
                advice: "use a shorter name, or a shorter $XDG_RUNTIME_DIR")
        }
        return path
    }
}
