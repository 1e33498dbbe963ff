internal import CLinux

/// A pidfd: means one process, and never another one that gets its number.
package struct ProcessHandle: ~Copyable {
    package let descriptor: OwnedDescriptor

    /// Of this process.
    package static func own() throws(LinuxError) -> ProcessHandle {
        ProcessHandle(
            descriptor: OwnedDescriptor(
                adopting: try checked(mingle_pidfd_open(HostProcess.number), "pidfd_open", "this process")))
    }

    /// Of a child that was not collected yet.
    package init(child: Int32) throws(Peer.Unknown) { self = try Peer(number: child).onlyHandle() }

    package init(descriptor: consuming OwnedDescriptor) { self.descriptor = descriptor }

    /// Another handle of the same process.
    package func copy() throws(LinuxError) -> ProcessHandle {
        // F_DUPFD_CLOEXEC (include/uapi/linux/fcntl.h)
        let number = try checked(mingle_fcntl(descriptor.number, 1030, 0), "fcntl", "F_DUPFD_CLOEXEC")
        return ProcessHandle(descriptor: OwnedDescriptor(adopting: number))
    }

    /// Whether the process has ended.
    package var hasEnded: Bool { PollList.events(of: descriptor.number, Int16(POLLIN), milliseconds: 0) != 0 }

    /// Waits for its end.
    /// - Returns: false when the time was over first.
    package func waitForEnd(milliseconds: Int32) -> Bool {
        let end = monotonicNanoseconds() + UInt64(max(0, milliseconds)) * 1_000_000
        while true {
            let now = monotonicNanoseconds()
            let left = end > now ? Int32((end - now + 999_999) / 1_000_000) : 0
            if PollList.events(of: descriptor.number, Int16(POLLIN), milliseconds: left) != 0 { return true }
            if left == 0 { return false }
        }
    }

    /// Sends a signal to this process and no other.
    package func send(_ signal: Int32) throws(LinuxError) {
        try checked(mingle_pidfd_send_signal(descriptor.number, signal), "pidfd_send_signal")
    }
}
