internal import Synchronization

/// Whether this process may still name files by paths. A confined VMM may not from some moment on: whoever would open something
/// then has to do without, since asking the kernel would end the process.
public enum PathAccess {
    private static let hasEnded = Atomic(false)

    public static var isOver: Bool { hasEnded.load(ordering: .relaxed) }
    public static func end() { hasEnded.store(true, ordering: .relaxed) }
}
