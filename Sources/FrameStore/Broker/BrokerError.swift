public import LinuxHost

/// What can go wrong between a client and its broker.
public enum BrokerError: Error, Equatable, Sendable, CustomStringConvertible {
    /// A system call failed.
    case system(LinuxError)
    /// Nobody answers: the socket's path, or what happened to the connection.
    case noBroker(String)
    /// The process at the other end runs as another user.
    case foreignPeer(user: UInt32)
    /// The broker closed the connection: it ended, or is being started again.
    case closed
    /// There is one, but it does not answer: it has too much to do, or is being started again.
    case busy(String)
    /// The broker answered, and declined.
    case refused(RefusalReason, String)
    /// What came is not what the protocol allows.
    case malformed(String)
    /// No answer in time.
    case overdue(milliseconds: Int)
    /// No broker could be started.
    case notStarted(String)

    /// Another attempt may go better.
    package var mayPass: Bool {
        switch self {
        case .noBroker, .closed, .busy, .refused(.busy, _): true
        default: false
        }
    }
    /// Perhaps none runs.
    package var mayLackBroker: Bool {
        self == .closed || { if case .noBroker = self { true } else { false } }()
    }

    public var description: String {
        switch self {
        case .system(let error): "frame broker: \(error)"
        case .noBroker(let what):
            "no frame broker answers" + (what.hasPrefix("/") ? " at " : ": ") + what
        case .closed: "the frame broker closed the connection"
        case .busy(let path): "the frame broker at \(path) is too busy to answer: try again"
        case .foreignPeer(let user):
            "the frame broker's socket belongs to \(UserNumbers.current.words(user)): remove it, or choose another state "
                + "directory"
        case .refused(let reason, let text): "the frame broker declined (\(reason)): \(text)"
        case .malformed(let what): "the frame broker broke the protocol: \(what)"
        case .overdue(let milliseconds): "the frame broker did not answer within \(milliseconds) ms"
        case .notStarted(let why): "no frame broker could be started: \(why)"
        }
    }
}

/// Why a broker declined a greeting.
public enum RefusalReason: UInt8, Sendable {
    /// Another version of the protocol: end all guests of the older version first.
    case version = 1
    /// The domain's name is not allowed.
    case name
    /// The guest has no pages, or more than are allowed.
    case pages
    /// Too many clients, in all or of this process.
    case full
    /// The staging area is missing or not as it has to be.
    case staging
    /// Too many connections that did not join: this one had to give way to another.
    case busy
    /// Nothing proves who the client is: which process, or of which user.
    case identity
}
