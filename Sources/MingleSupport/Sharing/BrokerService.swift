internal import FrameStore
internal import BrokerClient
internal import GuestMemory
public import LinuxHost

/// The broker of a state directory.
public enum BrokerService {
    public static func socket(_ directory: StateDirectory) -> String {
        BrokerLauncher.socketPath(stateDirectory: directory.path)
    }

    /// Sees to it that it runs, and gives its socket.
    /// - Parameters:
    ///   - busyMilliseconds: how long one that runs may take to answer.
    ///   - staysInGroup: one that this call starts stays in this process's control group.
    @discardableResult
    public static func ensureRunning(
        in directory: StateDirectory, busyMilliseconds: Int = 10_000, staysInGroup: Bool = false
    ) throws(SupportError) -> String {
        let socket = try SocketPath.checked(socket(directory))
        let program = try Companion.broker.path()
        do throws(BrokerError) {
            try BrokerLauncher.ensureRunning(
                stateDirectory: directory.path, executable: program, busyMilliseconds: busyMilliseconds,
                staysInGroup: staysInGroup)
        } catch {
            throw .requirement(
                problem: "\(error)",
                advice: "see \(BrokerFiles(directory: directory.path).log), or use --sharing off")
        }
        return socket
    }

    /// What a guest that this process becomes would suffer from: what the broker was given by whoever started it, could not
    /// lift, and this process does not have, too. A limit of the memory that frames are charged to is felt by all.
    public static func warning(of report: BrokerReport, own: [ProcessConstraint] = ProcessConstraint.all())
        -> String?
    {
        let felt = report.constraints.filter { $0.limitsMemory || $0.isTighter(than: own) }
        guard !felt.isEmpty else { return nil }
        return "the frame broker keeps limits of whoever started it, for all guests that share: "
            + felt.map(\.description).joined(separator: ", ")
            + "; to be rid of them, end all guests and start the first one that shares without them"
    }

    /// The broker's processes, the one last that keeps the frames; none when none runs.
    static func processes(of directory: StateDirectory) -> [Int32] {
        guard let figures = try? BrokerStore.statistics(path: socket(directory)) else { return [] }
        return [figures.supervisor, figures.worker].filter { $0 > 0 }
    }

    /// Ends the broker of a directory that goes, and waits until it has; guests of it keep what they map.
    static func end(in directory: String) {
        let socket = BrokerLauncher.socketPath(stateDirectory: directory)
        // A supervisor that was lost is replaced in a moment.
        for attempt in 0..<500 where SystemCall.exists(socket) {
            if attempt % 50 == 0 { try? BrokerStore.endBroker(path: socket) }
            SystemCall.sleep(milliseconds: 10)
        }
    }
}
