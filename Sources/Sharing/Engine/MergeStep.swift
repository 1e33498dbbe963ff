/// Steps of a merge, and of giving references back, in the order of a page's life. Tests end a process at each of them.
public enum MergeStep: String, CaseIterable, Sendable {
    /// The store has answered to what was seen.
    case lookedUp = "looked-up"
    /// The store has answered to contents that it had asked for.
    case published
    /// Nobody can write the pages.
    case windowOpen = "window-open"
    /// All bytes were compared; the old mapping is still there.
    case compared
    /// The new mapping is there; writers still wait.
    case remapped
    /// The records say so, too.
    case recorded
    /// Home's memory is about to be freed, and has been.
    case punching, punched
    /// The store is about to be told what to forget, and has been.
    case forgetting, forgot
}
