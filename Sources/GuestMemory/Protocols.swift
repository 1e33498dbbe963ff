public import LinuxHost

/// Tells which pages a guest's vCPUs wrote. KVM's dirty log in a VM; a fake in tests.
public protocol DirtyPageLog: Sendable {
    /// Starts the log. Until then nothing is reported, and nothing costs the guest anything. From then on any page may be
    /// reported that was never cleared: what was written before is not known.
    func beginLogging() throws(LinuxError)
    /// Adds the pages written since they were last cleared to `bitmap`: 64 pages a word, in memory-file order
    /// (`GuestMemory.pageIndex`). Pages stay reported until cleared, if the log is cleared by hand.
    func harvestDirtyPages(into bitmap: inout [UInt64]) throws(LinuxError)
    /// Starts watching the pages of `bitmap` again: the next write to each is reported.
    func clearDirtyPages(_ bitmap: [UInt64]) throws(LinuxError)
}

/// Stops everybody who could write guest memory: all vCPUs and all device threads.
public protocol WriterControl: Sendable {
    /// Returns when nobody writes guest memory any more. Calls nest; each is undone by one ``resumeWriters()``.
    func pauseWriters()
    func resumeWriters()
}

/// Whether KVM records which pages the guest writes.
public enum DirtyLogMode: String, CaseIterable, Sendable {
    case off
    /// KVM_GET_DIRTY_LOG clears what it reports.
    case on
    /// KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2: reported pages stay reported until cleared, in chosen ranges.
    case manual
}
