internal import CLinux
internal import GuestMemory
internal import LinuxHost
public import VMMProtocol

// Which process a guest is: the number in its record means something in one PID namespace only, and the state directory may
// be shared by several (a container that has it mounted).
extension GuestRecord {
    /// The PID namespace whose numbers of processes this process can use.
    static var localNamespace: UInt64 { ProcessNamespace.current }

    /// Whether the number may be looked for among the processes that this one sees: older versions do not say where they
    /// counted.
    var hasLocalNumber: Bool { processNamespace == 0 || processNamespace == ProcessNamespace.current }
}

extension GuestRegistry {
    /// The number of a guest's process in this PID namespace, for looking at it; nil when it has none here.
    public func localProcess(of record: GuestRecord) -> Int32? {
        if record.hasLocalNumber { return record.process }
        guard let process = try? controlSocket(of: record).peer().process, process > 0 else { return nil }
        return process
    }

    /// The process of a running guest, proved: it listens at the guest's control socket, or its number was given in this PID
    /// namespace. The record is to be read again afterwards.
    /// - Returns: nil when it has ended.
    func provedProcess(of record: GuestRecord) throws(SupportError) -> Peer? {
        do {
            let peer = try controlSocket(of: record).peerIdentity()
            if record.processNamespace != 0, record.hasLocalNumber, peer.number != record.process {
                throw SupportError.guest(
                    name: record.name,
                    reason: "process \(peer.number ?? 0) listens at its control socket, and its record says "
                        + "\(record.process): end it by hand")
            }
            return peer
        } catch let error as SupportError { throw error } catch {}
        // Without a control socket, or with one that does not tell.
        guard record.processNamespace != 0, record.processNamespace == ProcessNamespace.current else {
            throw .guest(
                name: record.name,
                reason:
                    "it was started in another PID namespace, and nothing proves which process it is here: use the "
                    + "command where it was started")
        }
        // The record claims a number; the kernel knows who holds its lock.
        let file = try? SystemCall.linkStatus(directory.guestsPath + "/" + record.name).get()
        let holder = file.flatMap { LockHolder.process(of: $0) }
        guard holder == record.process else {
            throw .guest(
                name: record.name,
                reason: "its record says process \(record.process), but "
                    + (holder.map { "process \($0) holds it: end that by hand" }
                        ?? "nothing proves who holds it: end it by hand"))
        }
        do throws(Peer.Unknown) { return try Peer(number: record.process) } catch {
            if error == .ended { return nil }
            throw .guest(name: record.name, reason: "process \(record.process): \(error)")
        }
    }

    private func controlSocket(of record: GuestRecord) throws(LinuxError) -> PacketSocket {
        let socket = try PacketSocket.connect(to: directory.controlPath + "/" + record.name)
        let user = try socket.peer().user
        guard UserNumbers.current.isOurs(user) else {
            throw LinuxError(operation: "SO_PEERCRED", code: EPERM, subject: UserNumbers.current.words(user))
        }
        return socket
    }
}
