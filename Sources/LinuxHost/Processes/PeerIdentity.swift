internal import CLinux

/// Which process a client is. Two are equal only if they are one process.
///
/// A process number proves nothing by itself: it is 0 for every process that a PID namespace does not show.
package enum PeerIdentity: Hashable, Sendable {
    /// The inode of its pidfds (Linux 6.9), which no other process ever has.
    case pidfd(UInt64)
    /// Its number, where this process sees it; no other process has it while that one lives.
    case number(Int32)
}

/// The process at the other end: who it is, and a handle that tells when it has ended.
package struct Peer: ~Copyable {
    package let identity: PeerIdentity
    package let handle: ProcessHandle
    /// Its number for people, in this process's PID namespace; nil when it has none there.
    package let number: Int32?

    /// What the kernel can prove: less is for tests of older kernels.
    package struct Ability: Equatable, Sendable {
        /// pidfds come with messages and connections (Linux 6.5).
        package var passesDescriptors = true
        /// pidfds have inodes of their own (Linux 6.9).
        package var hasInodes = true
        package static let all = Ability()
        package init() {}
    }

    /// Why nothing proves who a process is.
    package enum Unknown: Error, Equatable, CustomStringConvertible {
        case invisible
        case ended
        case system(LinuxError)
        package var description: String {
            switch self {
            case .invisible:
                "it runs in a PID namespace in which this process has no number, and the kernel has no other proof of who it "
                    + "is (Linux 6.9 has): end it, and start the broker where all guests can be seen"
            case .ended: "the process has ended"
            case .system(let error): "\(error)"
            }
        }
    }

    /// Takes what the kernel said of a sender or a peer.
    /// - Parameters:
    ///   - pidfd: what the kernel gave; negative if it gave none.
    ///   - process: a number that the kernel gave; 0 if the process has none here.
    ///   - isStill: whether the connection stands, so that the number was not given to another process before the pidfd of it
    ///     was opened.
    init(pidfd: Int32, process: Int32, ability: Ability = .all, isStill: () -> Bool) throws(Unknown) {
        let handle = try Self.handle(pidfd, process, ability, isStill)
        let inode = ability.hasInodes ? mingle_pidfd_inode(handle.number) : 0
        guard inode != 0 || process > 0 else { throw .invisible }
        identity = inode != 0 ? .pidfd(inode) : .number(process)
        number = process > 0 ? process : nil
        self.handle = ProcessHandle(descriptor: handle)
    }

    /// A process by a number of this PID namespace. That the number is still that of who is meant is for the caller to prove,
    /// after this.
    package init(number: Int32, ability: Ability = .all) throws(Unknown) {
        try self.init(pidfd: -1, process: number, ability: ability) { true }
    }

    private static func handle(_ given: Int32, _ process: Int32, _ ability: Ability, _ isStill: () -> Bool)
        throws(Unknown) -> OwnedDescriptor
    {
        if given >= 0 {
            let pidfd = OwnedDescriptor(adopting: given)
            if ability.passesDescriptors { return pidfd }
        }
        guard process > 0 else { throw .invisible }
        let number = mingle_pidfd_open(process)
        if number == -ESRCH { throw .ended }
        guard number >= 0 else {
            throw .system(LinuxError(operation: "pidfd_open", code: -number, subject: "process \(process)"))
        }
        let opened = OwnedDescriptor(adopting: number)
        guard isStill() else { throw .ended }
        return opened
    }

    /// The handle alone.
    package consuming func onlyHandle() -> ProcessHandle { handle }
}

extension PacketSocket {
    /// Has the kernel tell who sends what arrives; also at sockets that are accepted from this one.
    package func tellSenders(_ on: Bool) throws(LinuxError) {
        try checked(mingle_packet_tell_sender(descriptor.number, on ? 1 : 0), "SO_PASSCRED")
    }

    /// The process at the other end: of an accepted socket the one that connected, of a connected socket the one that listened.
    package func peerIdentity(_ ability: Peer.Ability = .all) throws(Peer.Unknown) -> Peer {
        let process: Int32
        do throws(LinuxError) { process = try peer().process } catch { throw .system(error) }
        let pidfd = ability.passesDescriptors ? mingle_peer_pidfd(descriptor.number) : -ENOPROTOOPT
        if pidfd == -ESRCH || pidfd == -ENODATA { throw .ended }
        // Before Linux 6.5: as long as the connection stands, its maker has not ended, and nobody else got its number.
        return try Peer(pidfd: pidfd, process: process, ability: ability) { stands() }
    }

    package func stands() -> Bool {
        PollList.events(of: descriptor.number, 0, milliseconds: 0) & Int16(POLLHUP | POLLERR) == 0
    }

    /// As ``receive(into:)``, with who sent it, of a socket that tells senders.
    package func receiveFrom(into buffer: inout [UInt8]) -> (Received, Sender) {
        var sender = mingle_sender(process: 0, user: UInt32.max, pidfd: -1)
        let received = unsafe receive(into: &buffer) { descriptor, bytes, count, passed in
            // SAFETY: as the caller says of its pointers; `sender` is a live local.
            unsafe mingle_packet_receive_from(descriptor, bytes, count, passed, &sender)
        }
        return (received, Sender(process: sender.process, user: sender.user, pidfd: sender.pidfd))
    }

    /// What the kernel says of who sent a message.
    package final class Sender {
        package let process: Int32
        package let user: UInt32
        private var pidfd: Int32

        init(process: Int32, user: UInt32, pidfd: Int32) {
            (self.process, self.user, self.pidfd) = (process, user, pidfd)
        }

        /// To be asked once.
        package func peer(_ ability: Peer.Ability, isStill: () -> Bool) throws(Peer.Unknown) -> Peer {
            let taken = pidfd
            pidfd = -1
            return try Peer(pidfd: taken, process: process, ability: ability, isStill: isStill)
        }

        deinit { if pidfd >= 0 { _ = OwnedDescriptor(adopting: pidfd) } }
    }
}
