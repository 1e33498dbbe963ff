internal import CLinux
internal import FrameStore
internal import GuestMemory
internal import LinuxHost
internal import VMMProtocol

/// A broker that is gone, supervisor and all, while guests would share: VMMs start none, so the next `mingle` of any kind does.
public enum LostBroker {
    /// Seconds that a guest may take to say whether it wants one.
    private static let patience = 0.5

    /// Starts a broker where one is lost and a running guest wants it, and hands each such guest a connection. Where nothing is
    /// lost this takes a look at the guests' records and one connection.
    /// - Returns: messages for people.
    public static func restore(in directory: StateDirectory) throws(SupportError) -> [String] {
        let records = try GuestRegistry(directory: directory).guests().running
        var messages: [String] = []
        for socket in Set(records.compactMap(\.broker)).sorted()
        where isTrusted(socket, in: directory) && isLost(socket) {
            let wanting = records.filter { $0.broker == socket }.compactMap { record in
                wants(record, in: directory)
            }
            guard !wanting.isEmpty, let slash = socket.lastIndex(of: "/") else { continue }
            try BrokerService.ensureRunning(in: StateDirectory(path: String(socket[..<slash])))
            var count = 0
            for guest in wanting {
                // One that is ending, or found it by itself, needs none.
                if (try? guest.offer(broker: socket)) != nil { count += 1 }
            }
            messages.append(
                "the frame broker was lost: another one was started, and offered to \(count) "
                    + (count == 1 ? "guest" : "guests"))
        }
        return messages
    }

    /// Whether a broker may be started for that socket. A guest's VMM writes its own record, and one that was taken over could name any
    /// directory of the user's there.
    static func isTrusted(_ socket: String, in directory: StateDirectory) -> Bool {
        guard let slash = socket.lastIndex(of: "/") else { return false }
        let folder = String(socket[..<slash])
        return (folder + "/").hasPrefix(directory.path + "/")
            && socket == BrokerFiles(directory: folder).socket && !folder.split(separator: "/").contains("..")
    }

    /// Whether nobody listens at a broker's socket.
    static func isLost(_ socket: String) -> Bool {
        do throws(LinuxError) {
            _ = try PacketSocket.connect(to: socket)
            return false
        } catch { return error.code == ENOENT || error.code == ECONNREFUSED }
    }

    /// A connection to a guest that shares and has no broker.
    private static func wants(_ record: GuestRecord, in directory: StateDirectory) -> ControlClient? {
        guard
            let client = try? ControlClient(
                guest: record.name, path: directory.controlPath + "/" + record.name, seconds: patience),
            let guest = try? client.statistics(), let sharing = guest.sharing, sharing.isEnabled,
            sharing.failure == nil
        else { return nil }
        return client
    }
}
