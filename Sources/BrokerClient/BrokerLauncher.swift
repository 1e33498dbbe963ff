public import FrameStore
internal import LinuxHost

/// Finds the broker of a state directory, or starts it. To be called before guest memory exists.
public enum BrokerLauncher {
    /// Path of the broker's socket in a state directory.
    public static func socketPath(stateDirectory: String) -> String {
        BrokerFiles(directory: stateDirectory).socket
    }

    /// Joins a domain of the broker, which is started if there is none.
    /// - Parameters:
    ///   - stateDirectory: a directory of this user that nobody else can enter.
    ///   - executable: path of `mingle-broker`.
    ///   - domain: nil for one of this guest alone.
    ///   - pageCount: pages of the guest.
    public static func connectOrStart(
        stateDirectory: String, executable: String, domain: String?, pageCount: Int,
        deadlineMilliseconds: Int = 10_000
    ) throws(BrokerError) -> BrokerStore {
        try connectOrStart(
            stateDirectory: stateDirectory, executable: executable, options: [], domain: domain,
            pageCount: pageCount, deadlineMilliseconds: deadlineMilliseconds)
    }

    /// - Parameters:
    ///   - options: changes of ``BrokerLimits``, `name=number`, for a broker that this call starts.
    ///   - history: what the guest knows of its earlier connections.
    package static func connectOrStart(
        stateDirectory: String, executable: String, options: [String], domain: String?, pageCount: Int,
        deadlineMilliseconds: Int = 10_000, history: SessionHistory = SessionHistory()
    ) throws(BrokerError) -> BrokerStore {
        let files = BrokerFiles(directory: stateDirectory)
        try files.check()
        let end = monotonicNanoseconds() + 10_000_000_000
        var nextStart: UInt64 = 0
        var pause: UInt64 = 2_000_000
        while true {
            var failure: BrokerError
            do throws(BrokerError) {
                return try BrokerStore.connect(
                    path: files.socket, domain: domain, pageCount: pageCount,
                    deadlineMilliseconds: deadlineMilliseconds, history: history)
            } catch { failure = error }
            let now = monotonicNanoseconds()
            guard failure.mayPass, now < end else {
                if case .noBroker = failure { throw .notStarted("after 10 s, \(failure)") }
                throw failure
            }
            // One that is just ending still holds the lock, and ours ends at once: so again, now and then.
            if failure.mayLackBroker, now >= nextStart {
                try start(executable, stateDirectory, options)
                nextStart = now + 500_000_000
            }
            Pause.sleep(nanoseconds: pause)
            pause = min(pause * 2, 100_000_000)
        }
    }

    /// Sees to it that a broker answers, without joining a domain: for who starts guests, and is none.
    /// - Parameters: as of `connectOrStart`.
    ///   - busyMilliseconds: how long one that does not answer may take to.
    ///   - staysInGroup: a broker that this call starts stays in this process's control group, and what it keeps is charged
    ///     there.
    public static func ensureRunning(
        stateDirectory: String, executable: String, busyMilliseconds: Int = 10_000, staysInGroup: Bool = false
    ) throws(BrokerError) {
        let files = BrokerFiles(directory: stateDirectory)
        try files.check()
        let started = monotonicNanoseconds()
        let end = started + 10_000_000_000
        var nextStart: UInt64 = 0
        var pause: UInt64 = 2_000_000
        while true {
            let failure: BrokerError
            do throws(BrokerError) {
                // The connection itself makes a broker that was about to end wait for a client once more.
                _ = try BrokerStore.statistics(path: files.socket)
                return
            } catch { failure = error }
            let now = monotonicNanoseconds()
            if case .busy = failure, now - started < UInt64(max(0, busyMilliseconds)) * 1_000_000 { continue }
            guard case .noBroker = failure else { throw failure }
            guard now < end else { throw .notStarted("after 10 s, \(failure)") }
            if now >= nextStart {
                try start(executable, stateDirectory, staysInGroup ? ["stays=1"] : [])
                nextStart = now + 500_000_000
            }
            Pause.sleep(nanoseconds: pause)
            pause = min(pause * 2, 100_000_000)
        }
    }

    private static func start(_ executable: String, _ stateDirectory: String, _ options: [String])
        throws(BrokerError)
    {
        let said: String
        let ending: HostProcess.Ending?
        do throws(LinuxError) {
            var errors = try ErrorPipe()
            let starter = try HostProcess.spawn(
                executable, ["start", stateDirectory] + options, errors: .descriptor(errors.childEnd))
            said = errors.readAll(milliseconds: 15_000)
            ending = HostProcess.collect(starter, wait: true)
        } catch { throw .notStarted("\(error)") }
        if ending != .exited(0) {
            throw .notStarted(said.isEmpty ? "\(executable): \(words(ending))" : said)
        }
    }

    private static func words(_ ending: HostProcess.Ending?) -> String {
        switch ending {
        case .exited(let status): "it ended with status \(status)"
        case .killed(let signal): "signal \(signal) killed it"
        case nil: "it did not end"
        }
    }
}
