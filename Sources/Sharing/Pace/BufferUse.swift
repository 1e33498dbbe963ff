/// When the buffers that passes use go back to the host. A guest's buffers hold two MiB and more, staging area included.
struct BufferUse {
    /// Passes without a window after which they go back.
    private static let idlePasses = 3
    /// They also go back before a rest of so many nanoseconds, if so many pages were looked at since the last time. (A guest that hardly does
    /// anything has small merges in most passes: it would keep them for ever.)
    private static let longRest: UInt64 = 100_000_000
    private static let muchActivity = 64

    private var passesWithoutWindow = 0
    private var pagesLooked = 0

    /// A pass is over.
    /// - Parameters:
    ///   - activity: pages that it looked at, about.
    ///   - rest: nanoseconds until the next one.
    /// - Returns: whether buffers go back now.
    mutating func passed(activity: Int, hadWindow: Bool, rest: UInt64) -> Bool {
        passesWithoutWindow = hadWindow ? 0 : passesWithoutWindow + 1
        pagesLooked += min(activity, Self.muchActivity)
        guard
            passesWithoutWindow == Self.idlePasses
                || rest >= Self.longRest && pagesLooked >= Self.muchActivity
        else { return false }
        pagesLooked = 0
        return true
    }
}
